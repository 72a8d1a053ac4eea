"""Models of every form: functions, sparse and old ones, open ranks, empty tensors, control flow; none may crash."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.graph.runtime import run, session
from tests.graph.test_normalise import operators, parse, same_numbers, weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

FUNCTIONS = """<ir_version: 8, opset_import: ["" : 17, "our.own" : 1]>
agraph (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, float[4] t = {1,2,3,4}> {
    a = our.own.block <alpha = 0.5> (x, w)   b = our.own.block <alpha = 0.1> (a, w)   y = Add (b, t)
}
<domain: "our.own", opset_import: ["" : 17, "our.own" : 1]>
block <alpha> (x, w) => (y) { t = MatMul (x, w)  u = our.own.act <alpha : float = @alpha> (t)  y = Add (u, x) }
<domain: "our.own", opset_import: ["" : 17]>
act <alpha> (x) => (y) { t = LeakyRelu <alpha : float = @alpha> (x)  y = Neg (t) }"""


def test_local_functions_are_inlined_under_names_of_their_own() -> None:
    model = onnx.parser.parse_model(FUNCTIONS)
    model.metadata_props.add(key="author", value="us")
    result = same_numbers(model)
    assert operators(result) == ["MatMul", "LeakyRelu", "Neg", "Add"] * 2 + ["Add"]
    assert not result.functions
    assert sorted(weights(result)) == ["t", "w"]
    assert result.metadata_props == model.metadata_props
    outputs = [name for node in result.graph.node for name in node.output]
    assert len(set(outputs) | {"t", "w", "x"}) == len(outputs) + 3


def test_large_weights_and_constants_survive_inlining() -> None:
    model = onnx.parser.parse_model(FUNCTIONS)
    large = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(large)))
    model.graph.initializer.append(numpy_helper.from_array(large.T.copy(), "l"))
    model.graph.node.append(helper.make_node("MatMul", ["l", "k"], ["lk"]))
    model.graph.node.append(helper.make_node("Add", ["y", "lk"], ["z"]))
    model.graph.output[0].name = "z"
    model.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    result = same_numbers(model, 1, 4)
    assert {"k", "l"} <= weights(result).keys()
    assert [v.name for v in result.graph.input] == ["x"]


def sparse(name: str, dense: np.ndarray, *, by_place: bool) -> onnx.SparseTensorProto:
    places = np.argwhere(dense) if by_place else np.flatnonzero(dense)
    values = numpy_helper.from_array(dense[dense != 0], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), name), dense.shape)


@pytest.mark.parametrize("by_place", [False, True])
def test_sparse_initializers_are_written_out(by_place: bool) -> None:
    dense = np.array([[0, 1.5, 0], [2.5, 0, 0], [0, 0, -1]], np.float32)
    model = parse("agraph (float[N, 3] x) => (float[N, 3] y) { y = MatMul (x, w) }")
    model.graph.sparse_initializer.append(sparse("w", dense, by_place=by_place))
    result = normalise(model)
    assert np.array_equal(weights(result)["w"], dense)
    assert not result.graph.sparse_initializer
    x = np.eye(3, dtype=np.float32)
    assert np.array_equal(run(session(result), {"x": x})["y"], dense)


def test_a_sparse_constant_is_written_out() -> None:
    dense = np.array([0, 7, 0, 8], np.float32)
    model = parse("agraph (float[N, 4] x) => (float[N, 4] y) { y = Add (x, c) }")
    constant = helper.make_node("Constant", [], ["c"], sparse_value=sparse("c", dense, by_place=False))
    model.graph.node.insert(0, constant)
    assert np.array_equal(weights(normalise(model))["c"], dense)


def test_a_sparse_initializer_that_is_too_large_stays_and_is_no_weight() -> None:
    model = parse("agraph (float[N, 5000] x) => (float[N, 5000] y) { y = MatMul (x, w) }")
    values, indices = (numpy_helper.from_array(np.array([v], t), "w") for v, t in ((2, np.float32), (7, np.int64)))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5000, 5000]))
    graph = TraceGraph.of(model)
    assert len(graph.model.graph.sparse_initializer) == 1 and not graph.initializers
    assert graph.shape("y") == (None, 5000)
    assert graph.inputs == ("x",)


def test_unknown_ranks_and_missing_shapes() -> None:
    model = parse("agraph (float[N, 4] x, float z) => (float y, float u) { a = Relu (x) y = Add (a, z) u = Neg (z) }")
    for value in (*model.graph.output, model.graph.input[1]):
        value.type.tensor_type.ClearField("shape")
    graph = TraceGraph.of(model)
    assert graph.shape("a") == (None, 4)
    assert graph.shape("z") is None and graph.shape("y") is None
    assert graph.dtype("u") == TensorProto.FLOAT


def test_empty_tensors() -> None:
    model = parse(
        """agraph (float[N, 3] x) => (float[N, 3] y, float[z] e) <int64[1] none = {0}, int64[1] all = {-1}> {
            s = Slice (x, none, none, none)  c = Concat <axis = 0> (s, x)  y = Relu (c)  e = Reshape (s, all) }"""
    )
    graph = TraceGraph.of(model)
    assert graph.size("s") == (0, 3)
    assert graph.shape("e") == (0,)
    same_numbers(model)


def test_the_same_names_in_two_branches_and_captures_from_far_outside() -> None:
    model = parse(
        """agraph (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
            far = Mul (x, w)  dead = Neg (far)
            y = If (c) <
                then_branch = g1 () => (float[2] o) {
                    t = If (c) <then_branch = g3 () => (float[2] p) { p = Add (far, w) },
                                else_branch = g4 () => (float[2] q) { q = Neg (far) }>
                    o = Relu (t) },
                else_branch = g2 () => (float[2] o2) { t = Abs (far)  o2 = Sub (t, w) }> }"""
    )
    result = normalise(model)
    assert operators(result) == ["Mul", "If"]
    graph = TraceGraph(result)
    assert graph.captured == {"far", "w"}
    assert graph.shape("y") == (2,)
    onnx.checker.check_model(result, full_check=True)
    for condition in (True, False):
        inputs = {"x": np.array([1, -2], np.float32), "c": np.array(condition)}
        assert np.array_equal(run(session(model), inputs)["y"], run(session(result), inputs)["y"])


def test_shapes_of_loops_and_scans() -> None:
    model = parse(
        """agraph (float[N, 2] x, int64 trips, float[5, 3] s) => (float[N, 2] y, float[K, N, 2] all, float[5, 3] z)
        <bool go = {1}, float[3] zero = {0, 0, 0}> {
            a = Relu (x)
            y, all = Loop (trips, go, x) <body = g (int64 i, bool c, float[N, 2] v)
                => (bool c2, float[N, 2] v2, float[N, 2] v3) { c2 = Identity (c) v2 = Add (v, a) v3 = Neg (v) }>
            last, z = Scan <num_scan_inputs = 1, body = h (float[3] state, float[3] item) => (float[3] n, float[3] o)
                { n = Add (state, item)  o = Identity (n) }> (zero, s) }"""
    )
    graph = TraceGraph.of(model)
    assert graph.shape("z") == (5, 3)
    assert graph.dtype("all") == TensorProto.FLOAT
    assert graph.captured == {"a"}


def test_a_dimension_may_be_an_expression_of_others() -> None:
    model = parse(
        """agraph (float[batch, past, 4] k, float[batch, seq, 4] x, float[batch, total] mask) => (float[a, b] y) {
            j = Concat <axis = 1> (k, x)  r = ReduceSum <keepdims = 0> (j, axis)  y = Add (r, mask) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axis"))
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + seq"
    graph = TraceGraph.of(model)
    assert graph.sizes("y") == ((1, 128), (2, 192))
    assert graph.shape("y") == (None, None)


@pytest.mark.parametrize("name", ["past +", "1/0", "seq // zero", "a b", "f(x)", "-(-1)", "2 ** 99999"])
def test_a_dimension_may_have_any_name(name: str) -> None:
    model = parse("agraph (float[N, 4] x) => (float y) { y = ReduceSum <keepdims = 0> (x) }")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = name
    assert TraceGraph.of(model).shape("x") == (None, None)


def test_operators_of_the_runtime_have_shapes() -> None:
    model = parse(
        """agraph (float[N, 4] x) => (float[N, 3] y) <float[3, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
            g = com.microsoft.Gelu (x)  y = com.microsoft.FusedMatMul <transB = 1> (g, w) }"""
    )
    model.opset_import.add(domain="com.microsoft", version=1)
    graph = TraceGraph.of(model)
    assert (graph.shape("g"), graph.shape("y")) == ((None, 4), (None, 3))


def test_what_the_model_says_of_an_unknown_operator_is_believed() -> None:
    model = parse("agraph (float[N, 4] x) => (float[N, 7] y) { y = our.own.Odd (x) }")
    assert TraceGraph.of(model).shape("y") == (None, 7)


def test_quantised_weights_are_not_folded_into_floats() -> None:
    model = parse(
        """agraph (float[N, 2] x) => (float[N, 2] y) <int8[2, 2] w = {1, 2, 3, 4}> {
            s = Constant <value_float = 0.5> ()  z = Constant <value = int8 {0}> ()
            f = DequantizeLinear (w, s, z)  y = MatMul (x, f) }"""
    )
    assert operators(same_numbers(model)) == ["DequantizeLinear", "MatMul"]


def test_no_case_of_onnx_crashes_and_every_known_shape_is_right() -> None:
    """Where a dimension has no elements, 0 says as much as an open one."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    wrong = []
    for case in cases:
        graph = TraceGraph.of(case.model)
        for _, outputs in case.data_sets:
            for name, value in zip(graph.outputs, outputs, strict=True):
                size = graph.size(name)
                if isinstance(value, np.ndarray) and value.size and size not in (None, value.shape):
                    wrong.append((case.name, size, value.shape))
    assert len(cases) > 1800
    assert not wrong


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(("split", "lengths"), [("3", [3, 3, 1]), ("[2] {4, 3}", [4, 3]), ("", [1] * 7)])
def test_a_sequence_that_only_takes_a_tensor_apart_is_a_split(split: str, lengths: list[int], opset: int) -> None:
    constant = f"n = Constant <value = int64{split if split.startswith('[') else f' {{{split}}}'}> ()" if split else ""
    model = parse(
        f"""agraph (float[N, 7] x) => (float[N, a] y, float[N, b] z, float[N, c] w) {{
            {constant}  i = Constant <value = int64 {{0}}> ()  j = Constant <value = int64 {{-1}}> ()
            s = SplitToSequence <axis = 1> ({"x, n" if split else "x"})
            p = SequenceAt (s, i)  q = SequenceAt (s, j)  w = SequenceAt (s, i)  y = Neg (p)  z = Abs (q) }}""",
        opset,
    )
    result = same_numbers(model)
    assert operators(result) == ["Split", "Identity", "Neg", "Abs"]
    graph = TraceGraph(result)
    assert [(graph.shape(name) or ())[1] for name in graph.nodes[0].output] == lengths


def test_a_sequence_that_is_needed_as_such_stays() -> None:
    model = parse(
        """agraph (float[N, 7] x) => (float[N, a] y, int64 n) {
            i = Constant <value = int64 {0}> ()  s = SplitToSequence <axis = 1> (x)
            y = SequenceAt (s, i)  n = SequenceLength (s) }"""
    )
    assert operators(same_numbers(model)) == ["SplitToSequence", "SequenceAt", "SequenceLength"]
