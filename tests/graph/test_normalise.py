"""The normal form: what it folds, splits and renames; the numbers stay, the argument too, and twice is once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import helper, numpy_helper

from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.graph.normalise import read_by
from onnx_asgnas.graph.runtime import run, session
from tests.random_graphs import difference, networks, outputs_of

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))
"""Networks of the ONNX package, with weights that are made by ConstantOfShape."""


def parse(text: str, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}, "our.own" : 1]>\n{text}')


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def same_numbers(model: onnx.ModelProto, *batches: int) -> onnx.ModelProto:
    """The normal form, checked: bit for bit the same outputs, the argument as it was, and its own normal form."""
    before = model.SerializeToString()
    result = normalise(model)
    assert model.SerializeToString() == before
    assert normalise(result).SerializeToString() == result.SerializeToString()
    onnx.checker.check_model(result, full_check=True)
    for batch in batches or (1, 2, 5):
        assert difference(outputs_of(model, batch), outputs_of(result, batch)) == 0
    return result


@settings(max_examples=40)
@given(networks())
def test_random_networks_keep_their_numbers(model: onnx.ModelProto) -> None:
    same_numbers(model, 2)


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_networks_of_the_onnx_package_keep_their_numbers(path: Path) -> None:
    model = onnx.load(path)
    if path.stem in (
        "light_vgg19",
        "light_zfnet512",
        "light_bvlc_alexnet",
    ):  # seconds to run, and nothing to fold but weights
        assert normalise(normalise(model)).SerializeToString() == normalise(model).SerializeToString()
    else:
        result = same_numbers(model, 1)
        assert not {"Constant", "Shape", "Gather"} & set(operators(result))


def test_constants_of_every_kind_become_initializers() -> None:
    model = parse(
        """agraph (float[N, 2] x) => (float[N, 2] y, float[2] c) {
            a = Constant <value = float[2] {1, 2}> ()   b = Constant <value_float = 3.0> ()
            c = Constant <value_floats = [4.0, 5.0]> () d = Constant <value_int = 6> ()
            e = Constant <value_ints = [0, 2]> ()       p = Add (x, a)   q = Mul (p, b)   r = Reshape (q, e)
            f = Cast <to = 1> (d)   y = Add (r, f) }"""
    )
    result = same_numbers(model)
    assert operators(result) == ["Constant", "Add", "Mul", "Reshape", "Add"]  # c is an output: it stays a node
    assert weights(result)["f"] == 6


def test_an_operator_called_constant_of_another_domain_is_left_alone() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { c = our.own.Constant ()  y = Add (x, c) }")
    assert operators(normalise(model)) == ["Constant", "Add"]


MERGED = """agraph (float[N, 2] x) => (float[N, 2] y) <float[2] w = {{{values}}}> {{
    a = Identity (w)  b = Identity (a)  p = Add (x, w)  q = Mul (p, a)  y = Add (q, b) }}"""


def test_merged_weights_of_one_value_are_split_apart() -> None:
    result = same_numbers(parse(MERGED.format(values="3, 3")))
    assert sorted(weights(result)) == ["a", "b", "w"]
    assert operators(result) == ["Add", "Mul", "Add"]


def test_weights_of_many_values_that_are_equal_stay_one() -> None:
    result = same_numbers(parse(MERGED.format(values="1, 2")))
    assert list(weights(result)) == ["w"]
    assert operators(result) == ["Add", "Mul", "Add"]


def test_a_weight_that_a_subgraph_reads_keeps_its_identity() -> None:
    model = parse(
        """agraph (float[N, 2] x, bool c) => (float[N, 2] y) <float[2] w = {1, 2}> {
            a = Identity (w)
            y = If (c) <then_branch = t () => (float[N, 2] p) { p = Add (x, a) },
                        else_branch = e () => (float[N, 2] q) { q = Mul (x, a) }> }"""
    )
    assert operators(normalise(model)) == ["Identity", "If"]


def test_a_weight_that_two_operators_read_stays_one() -> None:
    model = parse("agraph (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}> { p = Add (x, w)  y = Mul (p, w) }")
    assert list(weights(same_numbers(model))) == ["w"]


def test_an_identity_that_gives_an_output_stays() -> None:
    model = parse(
        "agraph (float[N] x) => (float[N] y, float[2] v) <float[2] w = {1, 2}> { y = Relu (x) v = Identity (w) }"
    )
    assert operators(same_numbers(model)) == ["Relu", "Identity"]


def test_transposes_that_move_nothing_are_dropped() -> None:
    model = parse(
        """agraph (float[N, 2] x, bool c) => (float[N, 2] y, float[N, 2] z, float[N, 2] r) {
            a = Transpose <perm = [0, 1]> (x)  b = Transpose <perm = [0, 1]> (a)  y = Relu (b)
            z = Transpose <perm = [0, 1]> (y)
            s = Transpose <perm = [0, 1]> (x)
            t = Transpose <perm = [1, 0]> (a)  u = Transpose (t)  v = Abs (u)
            q = If (c) <then_branch = t () => (float[N, 2] p) { p = Add (v, s) },
                        else_branch = e () => (float[N, 2] q) { q = Mul (v, s) }>
            r = Neg (q) }"""
    )
    result = normalise(model)
    assert operators(result) == ["Relu", "Transpose", "Transpose", "Transpose", "Transpose", "Abs", "If", "Neg"]
    assert result.graph.node[0].input == ["x"]


def test_dropout_is_off_and_its_mask_goes() -> None:
    model = parse(
        """agraph (float[N, 4] x) => (float[N, 4] y) <float r = {0.5}, bool t = {1}> {
            a, mask = Dropout (x, r, t)   y = Relu (a) }"""
    )
    result = normalise(model)
    (dropout, _) = result.graph.node
    assert (list(dropout.input), list(dropout.output)) == (["x", "r"], ["a"])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert np.array_equal(run(session(result), {"x": x})["y"], np.maximum(x, 0))


def test_dropout_keeps_a_mask_that_is_read() -> None:
    model = parse("agraph (float[N, 4] x) => (float[N, 4] y, bool[N, 4] mask) { y, mask = Dropout (x) }")
    assert list(same_numbers(model).graph.node[0].output) == ["y", "mask"]


BATCH_NORM = """agraph (float[N, 2, 3, 3] x) => (float[N, 2, 3, 3] y {more})
    <float[2] s = {{1, 2}}, float[2] b = {{3, 4}}, float[2] m = {{0.5, 0.25}}, float[2] v = {{2, 3}}> {{ {text} }}"""


def test_batch_normalisation_uses_its_statistics() -> None:
    text = "y, m2, v2 = BatchNormalization <training_mode = 1, epsilon = 0.1> (x, s, b, m, v)"
    result = normalise(parse(BATCH_NORM.format(more="", text=text)))
    (node,) = result.graph.node
    assert list(node.output) == ["y"]
    assert [a.name for a in node.attribute] == ["epsilon"]
    x = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    shape = (1, 2, 1, 1)
    w = {name: value.reshape(shape) for name, value in weights(result).items()}
    expected = (x - w["m"]) / np.sqrt(w["v"] + 0.1) * w["s"] + w["b"]
    assert np.allclose(run(session(result), {"x": x})["y"], expected, atol=1e-6)


def test_running_statistics_that_are_given_out_are_those_that_came_in() -> None:
    text = "y, m2, v2 = BatchNormalization <training_mode = 1> (x, s, b, m, v)  u = Relu (v2)"
    result = normalise(parse(BATCH_NORM.format(more=", float[2] m2, float[2] u", text=text)))
    onnx.checker.check_model(result, full_check=True)
    outputs = outputs_of(result)
    assert np.array_equal(outputs["m2"], weights(result)["m"])
    assert outputs["u"].tolist() == [2, 3]
    assert normalise(result).SerializeToString() == result.SerializeToString()


def test_statistics_that_layers_share_are_split_apart() -> None:
    text = """a = BatchNormalization (x, s, b, m, m)  c = BatchNormalization (a, s, b, m, v)
              y = BatchNormalization (c, s, b, v, v)"""
    result = same_numbers(parse(BATCH_NORM.format(more="", text=text)))
    statistics = [name for node in result.graph.node for name in node.input[3:]]
    assert len(set(statistics)) == 6
    assert {"m", "v"} <= set(statistics)
    assert all(node.input[1:3] == ["s", "b"] for node in result.graph.node)  # what trains may be tied on purpose


@pytest.mark.parametrize(("opset", "kept"), [(6, ["is_test"]), (9, [])])
def test_before_opset_7_inference_must_be_said(opset: int, kept: list[str]) -> None:
    model = parse(BATCH_NORM.format(more="", text="y = BatchNormalization <is_test = 0> (x, s, b, m, v)"), opset)
    if opset > 6:
        del model.graph.node[0].attribute[:]
    (node,) = normalise(model).graph.node
    assert [(a.name, a.i) for a in node.attribute] == [(name, 1) for name in kept]


def test_training_is_off_in_subgraphs_too() -> None:
    text = """c = Constant <value = bool {1}> ()  z = Relu (x)
        y = If (c) <then_branch = g1 () => (float[N, 2, 3, 3] o)
            { o, m2, v2 = BatchNormalization <training_mode = 1> (z, s, b, m, v) },
            else_branch = g2 () => (float[N, 2, 3, 3] o2) { o2 = Neg (z) }>"""
    result = normalise(parse(BATCH_NORM.format(more="", text=text)))
    branch = next(a.g for a in result.graph.node[-1].attribute if a.name == "then_branch")
    assert (list(branch.node[0].output), list(branch.node[0].attribute)) == (["o"], [])


def test_weights_that_old_models_list_as_inputs_are_no_inputs() -> None:
    model = parse(
        "agraph (float[N, 2] x, float[2] w) => (float[N, 2] y) <float[2] w = {1, 2}> { y = Add (x, w) }", 8, 3
    )
    assert [v.name for v in model.graph.input] == ["x", "w"]
    result = normalise(model)
    assert [v.name for v in result.graph.input] == ["x"]
    assert result.ir_version == 4
    assert TraceGraph(result).inputs == ("x",)


def test_every_node_has_a_name_of_its_own() -> None:
    model = parse(
        "agraph (float[N] x) => (float[N] y) { a = Relu (x) b = Relu (a) c = Relu (b) d = Relu (c) y = Relu (d) }"
    )
    for node, name in zip(model.graph.node, ["same", "", "same", "Relu_1", ""], strict=True):
        node.name = name
    names = [node.name for node in normalise(model).graph.node]
    assert len(set(names)) == 5
    assert names[3] == "Relu_1"


def test_many_nodes_of_one_name_are_numbered_quickly() -> None:
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name="relu") for i in range(3000)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("t0", 1, [1])], [value("t3000", 1, [1])])
    result = normalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert [node.name for node in result.graph.node] == [f"relu_{i + 1}" for i in range(3000)]


def test_what_no_output_needs_is_dropped() -> None:
    model = parse(
        """agraph (float[N, 4, 4, 4] x, float[2] unused) => (float[N, 4, 4, 4] y)
        <float[2] w = {1, 2}, float[2] v = {1, 2}> {
            dead = Add (unused, w)  more = Neg (dead)
            y, indices = MaxPool <kernel_shape = [1, 1]> (x) }"""
    )
    result = same_numbers(model)
    assert list(result.graph.node[0].output) == ["y"]
    assert (weights(result), len(result.graph.node)) == ({}, 1)
    assert [v.name for v in result.graph.input] == ["x", "unused"]


def test_outputs_of_a_split_are_all_kept() -> None:
    model = parse("agraph (float[N, 4] x) => (float[N, 2] y) { y, other = Split <axis = 1> (x) }", 13)
    assert list(same_numbers(model).graph.node[0].output) == ["y", "other"]


RESHAPES = {
    "batch by Shape": "s = Shape (x)  n = Gather (s, zero)  t = Concat <axis = 0> (n, minus)",
    "batch and channels": "s = Shape (x)  t = Slice (s, zero, two)  t2 = Concat <axis = 0> (t, minus)",
    "rows of pixels": "s = Shape (x)  n = Gather (s, zero)  c = Gather (s, one)  t = Concat <axis = 0> (n, c, minus)",
    "batch last": "s = Shape (x)  n = Gather (s, zero)  t = Concat <axis = 0> (minus, n)",
    "product": "s = Shape (x)  n = Gather (s, zero)  m = Mul (n, two)  t = Concat <axis = 0> (m, minus)",
}
FOLDED = {"batch by Shape": [0, -1], "batch and channels": [0, 4, -1], "rows of pixels": [0, 4, -1]}


@pytest.mark.parametrize("case", RESHAPES)
def test_reshapes_by_computed_shapes_are_exact_at_every_batch(case: str) -> None:
    text = RESHAPES[case]
    target = text.rpartition(" = Concat")[0].rpartition(" ")[2]
    rank = {"batch and channels": "3", "rows of pixels": "3"}.get(case, "2")
    dims = ", ".join(f"d{i}" for i in range(int(rank)))
    model = parse(
        f"""agraph (float[N, 4, 3, 3] x) => (float[{dims}] y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] minus = {{-1}}>
        {{ {text}  y = Reshape (x, {target}) }}"""
    )
    result = same_numbers(model, 1, 2, 3, 7)
    if case in FOLDED:
        assert operators(result) == ["Reshape"]
        (constant,) = weights(result).values()
        assert constant.tolist() == FOLDED[case]
    elif case == "product":  # twice the batch is no length of the input: -1 cannot stand twice
        assert "Shape" in operators(result)


def test_a_reshape_with_allowzero_is_folded_too() -> None:
    model = parse(
        """agraph (float[N, 4, 3, 3] x) => (float[N, 36] y) <int64[1] zero = {0}, int64[1] c = {36}> {
            s = Shape (x)  n = Gather (s, zero)  t = Concat <axis = 0> (n, c)  y = Reshape <allowzero = 1> (x, t) }"""
    )
    result = same_numbers(model)
    assert operators(result) == ["Reshape"]
    assert not result.graph.node[0].attribute


def test_what_is_equal_at_some_sizes_by_chance_is_not_folded() -> None:
    """N // 4 is 0 at batch 1 and 2; the height modulo 32 is 0 at 64 and 96; height and width are told apart."""
    model = parse(
        """agraph (float[N, 1, H, W] x) => (int64[1] a, int64[1] b, float[d0, d1, d2] y)
        <int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] four = {4}, int64[1] ten = {32}> {
            s = Shape (x)  n = Gather (s, i0)  h = Gather (s, i2)  w = Gather (s, i3)
            a0 = Div (n, four)  a = Add (a0, i0)  b0 = Mod (h, ten)  b = Add (b0, i0)
            t = Concat <axis = 0> (n, w, h)  y = Reshape (x, t) }"""
    )
    result = normalise(model)
    x = np.arange(9 * 70 * 33, dtype=np.float32).reshape(9, 1, 70, 33)
    outputs = run(session(result), {"x": x})
    assert (outputs["a"], outputs["b"]) == (2, 70 % 32)
    assert np.array_equal(outputs["y"], x.reshape(9, 33, 70))


def test_a_bias_that_the_exporter_computes_as_zeros_goes() -> None:
    model = parse(
        """agraph (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)
        <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] b = {0, 0}> {
            z = Constant <value_float = 0.0> ()  n = Constant <value_ints = [2]> ()  l = CastLike (z, x)
            e = Expand (l, n)  p = Conv (x, w, e)  y = Conv (p, w, b) }"""
    )
    result = same_numbers(model)
    assert [len(node.input) for node in result.graph.node] == [2, 3]  # a bias that is a weight stays, even at zero
    assert sorted(weights(result)) == ["b", "w"]


def test_a_float_weight_is_never_taken_for_a_constant() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) <float w = {4}> { r = Sqrt (w)  y = Mul (x, r) }")
    assert operators(same_numbers(model)) == ["Sqrt", "Mul"]


def test_random_operators_are_not_evaluated() -> None:
    model = parse(
        """agraph (float[N] x) => (float[N] y) {
            c = Constant <value = float[2] {1, 2}> ()  r = RandomNormalLike (c)  s = ReduceSum (r)  y = Add (x, s) }"""
    )
    assert "RandomNormalLike" in operators(normalise(model))


LOOP = """agraph (float[2] x, int64 trips) => (float[2] y) <bool go = {1}> {
    a = Relu (x)   b = Neg (x)
    y = Loop (trips, , b) <body = g (int64 i, bool c, float[2] v) => (bool c2, float[2] v2) {
        c2 = Identity (c)  v2 = Add (v, a) }> }"""


def test_what_a_subgraph_captures_is_read_and_kept() -> None:
    model = parse(LOOP)
    result = normalise(model)
    assert operators(result) == ["Relu", "Neg", "Loop"]
    assert read_by(result.graph.node[-1]) == ["trips", "b", "a"]
    graph = TraceGraph(result)
    assert graph.captured == {"a"}  # although an input of the Loop is left out
    assert graph.consumers["a"] == [2]


def test_names_inside_a_subgraph_are_not_captured() -> None:
    model = parse(LOOP.replace("v2 = Add (v, a)", "w = Neg (v)  v2 = Add (v, w)"))
    result = normalise(model)
    assert operators(result) == ["Neg", "Loop"]
    assert TraceGraph(result).captured == frozenset()
