"""Construct: the compact network gives what the full one with zero groups gives, on any graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from onnx_asgnas.errors import SpaceError
from onnx_asgnas.graph import normalise
from onnx_asgnas.models import build
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.surgery import construct, remove, zero_structures
from tests.random_graphs import difference, networks, outputs_of, valid_choice, zeroed

TOLERANCE = 1e-5
"""Relative; what is measured over thousands of these networks is below 1e-6."""


def signature(model: onnx.ModelProto) -> list[bytes]:
    """Names, types and shapes of what goes in and comes out."""
    return [value.SerializeToString(deterministic=True) for value in (*model.graph.input, *model.graph.output)]


def names(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node]


@settings(max_examples=200)
@given(networks(), st.integers(0, 2**16))
def test_compact_equals_the_zeroed_full_network(model: onnx.ModelProto, seed: int) -> None:
    before = model.SerializeToString()
    space = analyze(model)
    random = np.random.default_rng(seed)
    chosen = valid_choice(space, lambda n: int(random.integers(n)))
    full = zeroed(normalise(model), [space.groups[i] for i in chosen])
    given_bytes = full.SerializeToString()

    compact = construct(full, space)
    assert space.graph is not None
    before_training = remove(space, space.graph, chosen)

    assert (model.SerializeToString(), full.SerializeToString()) == (before, given_bytes)
    for batch in (1, 3):
        expected = outputs_of(full, batch)
        assert difference(expected, outputs_of(compact, batch)) <= TOLERANCE
        assert difference(expected, outputs_of(before_training, batch)) <= TOLERANCE
    assert signature(compact) == signature(model)
    assert not {space.candidates[i].tensor for i in chosen} & set(names(compact))
    assert construct(compact).SerializeToString() == compact.SerializeToString()
    state = space.removal_state()
    for index in chosen:
        state.erase(index)
    rebuilt = analyze(compact)
    assert (rebuilt.params, rebuilt.macs) == (state.cost().params, state.cost().macs)
    assert rebuilt.params <= space.params


@settings(max_examples=50)
@given(networks())
def test_with_nothing_at_zero_it_is_the_normal_form_to_the_byte(model: onnx.ModelProto) -> None:
    assert construct(model).SerializeToString() == normalise(model).SerializeToString()


@settings(max_examples=30)
@given(networks(), st.integers(0, 2**16))
def test_what_is_at_zero_but_must_stay_stays(model: onnx.ModelProto, seed: int) -> None:
    """All groups at zero at once: what would cut the network through is kept, the numbers agree all the same."""
    space = analyze(model)
    full = zeroed(normalise(model), space.groups)
    compact = construct(full, space)
    for batch in (1, 2):
        one, two = outputs_of(full, batch, seed), outputs_of(compact, batch, seed)
        assert all(np.allclose(one[name], two[name], rtol=1e-5, atol=1e-6) for name in one)
    assert signature(compact) == signature(model)


SHAPES = {
    **{name: (4, 4, 1, 1) for name in ("w1", "w2", "w3", "w4")},
    **{name: (4, 8, 1, 1) for name in ("u1", "u2")},
    **{name: (8,) for name in ("scale", "shift", "mean")},
    "b": (4,),
    "depthwise": (8, 1, 1, 1),
    "wide": (4, 12, 1, 1),
    "linear": (2, 288),
    "large": (4, 4, 5, 5),
}
"""Weights that a graph may name; all are random."""


def parsed(text: str, out: str = "N, 4, 6, 6", batch: str = "N", **constants: list[int]) -> onnx.ModelProto:
    """A model from x [batch, 4, 6, 6] to y, with the weights of SHAPES that it names, and integer constants."""
    head = f"""<ir_version: 8, opset_import: ["" : 17]> agraph (float[{batch}, 4, 6, 6] x) => (float[{out}] y)"""
    model = onnx.parser.parse_model(head + "{" + text + "}")
    read = {name for node in model.graph.node for name in node.input}
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        n: random.normal(size=s).astype(np.float32) for n, s in SHAPES.items() if n in read
    }
    arrays |= {"variance": random.uniform(0.5, 2, 8).astype(np.float32)} if "variance" in read else {}
    arrays |= {name: np.array(value, np.int64) for name, value in constants.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def pruned(model: onnx.ModelProto, *tensors: str) -> tuple[onnx.ModelProto, SearchSpace]:
    """The compact network without these tensors, checked against the full one, and the space."""
    space = analyze(model)
    groups = {s.tensor: s.group for s in space.candidates}
    full = zeroed(normalise(model), [groups[tensor] for tensor in tensors])
    compact = construct(full, space)
    for batch in (1, 3):
        assert difference(outputs_of(full, batch), outputs_of(compact, batch)) <= TOLERANCE
    return compact, space


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def dims(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def test_a_sum_with_one_operand_left_is_bypassed() -> None:
    compact, _ = pruned(parsed("a = Conv (x, w1)  c = Conv (x, w2)  s = Add (a, c)  y = Relu (s)"), "a")
    assert operators(compact) == ["Conv", "Relu"]
    assert compact.graph.node[1].input == ["c"]
    assert set(dims(compact)) == {"w2"}


def test_a_joint_that_gives_an_output_becomes_an_identity() -> None:
    compact, _ = pruned(parsed("a = Conv (x, w1)  y = Add (a, x)"), "a")
    assert [(n.op_type, n.input, n.output) for n in compact.graph.node] == [("Identity", ["x"], ["y"])]


def test_a_sum_of_three_keeps_two() -> None:
    compact, _ = pruned(parsed("a = Conv (x, w1)  c = Conv (x, w2)  d = Conv (x, w3)  y = Sum (a, c, d)"), "c")
    assert compact.graph.node[-1].input == ["a", "d"]


def test_what_reads_a_concat_loses_the_channels() -> None:
    text = """a = Conv (x, w1)  c = Conv (x, w2, b)  k = Concat <axis = 1> (a, c)
              n = BatchNormalization (k, scale, shift, mean, variance)  r = Relu (n)
              d = Conv <group = 8> (r, depthwise)  y = Conv (d, u1)"""
    compact, space = pruned(parsed(text), "a")
    assert operators(compact) == ["Conv", "BatchNormalization", "Relu", "Conv", "Conv"]
    left = {"w2": (4, 4, 1, 1), "b": (4,), "depthwise": (4, 1, 1, 1), "u1": (4, 4, 1, 1)}
    assert dims(compact) == left | {name: (4,) for name in ("scale", "shift", "mean", "variance")}
    assert next(a.i for a in compact.graph.node[3].attribute if a.name == "group") == 4
    group = next(g for g in space.groups if g.name == "a")
    zeroed_with_it = {("w1", None, ())} | {(name, 0, (0, 1, 2, 3)) for name in ("scale", "shift", "depthwise")}
    assert {(p.initializer, p.axis, p.indices) for p in group.slices} == zeroed_with_it


@pytest.mark.parametrize("batch", ["N", "2"])
@pytest.mark.parametrize("between", ["Identity", "Relu"])
@pytest.mark.parametrize("behind", ["Relu", "BatchNormalization"])
@pytest.mark.parametrize("beside", ["Relu(c)", "Add(c, d)"])
def test_an_operand_of_a_concat_that_becomes_zero_with_others(
    batch: str, between: str, behind: str, beside: str
) -> None:
    """Its channels leave what reads the Concat, too; where that is not known, something of it stays, or a constant."""
    reader = "BatchNormalization(j, s, t, m, v)" if behind == "BatchNormalization" else "Relu(j)"
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> net (float[{batch},3,6,6] x) => (float[{batch},2,6,6] y) {{
            a = Conv(x, w1)  b = Conv(x, w2)  sum = Add(a, b)  d = {between}(sum)  c = Conv(x, w3)  e = {beside}
            j = Concat<axis=1>(d, e)  k = {reader}  y = Conv(k, w4) }}"""
    )
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 3, 1, 1), "w3": (4, 3, 1, 1), "w4": (2, 8, 1, 1)} | dict.fromkeys(
        "stmv", (8,)
    )
    read = {name for node in model.graph.node for name in node.input}
    random = np.random.default_rng(0)
    for name in sorted(read & shapes.keys()):
        values = np.abs(random.standard_normal(shapes[name])) + 0.1
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    space = analyze(model)
    state = space.removal_state()
    chosen = [i for i, s in enumerate(space.candidates) if s.tensor in "ab" and state.take(i)]
    full = zeroed(model, [space.candidates[i].group for i in chosen])
    assert difference(outputs_of(full), outputs_of(construct(full, space))) <= 1e-6
    assert difference(outputs_of(full), outputs_of(remove(space, space.parts.graph, chosen))) <= 1e-6


def test_lengths_in_a_constant_shrink_and_other_readers_keep_the_constant() -> None:
    text = """a = Conv (x, w1)  c = Conv (x, w2)  k = Concat <axis = 1> (a, c)  r1 = Reshape (k, to)  d = Conv (r1, u1)
              q = Concat <axis = 1> (x, x)  r2 = Reshape (q, to)  e = Conv (r2, u2)  y = Add (d, e)"""
    compact, _ = pruned(parsed(text, to=[0, 8, 6, 6]), "a")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in compact.graph.initializer}
    reshapes = [n for n in compact.graph.node if n.op_type == "Reshape"]
    assert [constants[n.input[1]].tolist() for n in reshapes] == [[0, 4, 6, 6], [0, 8, 6, 6]]
    assert reshapes[1].input[1] == "to"


def test_flattened_channels_leave_with_all_their_pixels() -> None:
    text = """a = Conv (x, w1)  c = Conv (x, w2)  k = Concat <axis = 1> (a, c)
              f = Flatten (k)  y = Gemm <transB = 1> (f, linear)"""
    model = parsed(text, "N, 2")
    compact, _ = pruned(model, "c")
    before, after = (onnx.numpy_helper.to_array(m.graph.initializer[-1]) for m in (model, compact))
    assert np.array_equal(after, before[:, :144])


def test_what_depends_on_no_input_any_more_is_folded() -> None:
    """With p and q gone their sum is zero, and a is its bias at every place, read by a product that stays."""
    text = """p = Conv (x, w1)  q = Conv (x, w2)  s = Add (p, q)  a = Conv (s, w3, b)
              g = GlobalAveragePool (a)  y = Mul (x, g)"""
    compact, _ = pruned(parsed(text), "p", "q")
    assert operators(compact) == ["Mul"]
    assert dims(compact) == {"g": (1, 4, 1, 1)}


def test_an_operand_leaves_a_sum_that_never_depended_on_an_input() -> None:
    """The queries of a DETR are zeros of the batch's length; what is added to them depends on its shape alone."""
    model = parsed("d = Shape (x)  q = ConstantOfShape (d)  a = Conv (q, w1, b)  s = Add (q, a)  y = Add (s, x)")
    compact, space = pruned(model, "a")
    assert space.graph is not None
    assert operators(compact) == operators(remove(space, space.graph, [0]))
    assert "Conv" not in operators(compact)


def test_a_set_that_is_valid_as_a_whole_goes_as_a_whole() -> None:
    """Folding a costs more than p and q gave, but less than p, q and d did: in this order the way leads through a set
    that is not valid by itself.
    """
    text = """p = Conv (x, w1)  q = Conv (x, w2)  s = Add (p, q)  a = Conv (s, w3, b)  c = Conv (x, w4)
              d = Conv <pads = [2, 2, 2, 2]> (x, large)  y = Sum (a, c, d)"""
    compact, space = pruned(parsed(text), "p", "q", "d")
    assert operators(compact) == ["Conv", "Sum"]
    assert dims(compact) == {"w4": (4, 4, 1, 1), "a": (1, 4, 6, 6)}
    assert space.params == 4 * 16 + 4 + 400


def test_channels_leave_a_folded_constant_too() -> None:
    """Where a is constant and r is gone, the constant that the outer Concat reads holds a's channels alone."""
    text = """p = Conv (x, w1)  q = Conv (x, w2)  s = Add (p, q)  a = Conv (s, w3, b)  r = Conv (x, w4)
              k = Concat <axis = 1> (a, r)  t = Tanh (k)  l = Concat <axis = 1> (t, x)  y = Conv (l, wide)"""
    model = parsed(text, "2, 4, 6, 6", batch="2")
    space = analyze(model)
    groups = {s.tensor: s.group for s in space.candidates}
    full = zeroed(normalise(model), [groups[tensor] for tensor in ("p", "q", "r")])
    compact = construct(full, space)
    assert difference(outputs_of(full), outputs_of(compact)) <= TOLERANCE
    assert dims(compact) == {"t": (2, 4, 6, 6), "wide": (4, 8, 1, 1)}


def test_a_joint_that_a_subgraph_captures_keeps_its_name() -> None:
    text = """a = Conv (x, w1)  k = Add (a, x)  h = ReduceSum <keepdims = 0> (x)  z = Constant <value_float = 0.0> ()
      c = Greater (h, z)
      y = If (c) <then_branch = g1 () => (float[N, 4, 6, 6] o) { o = Relu (k) },
                  else_branch = g2 () => (float[N, 4, 6, 6] o2) { o2 = Neg (k) }>"""
    compact, _ = pruned(parsed(text), "a")
    assert operators(compact)[0] == "Identity"
    assert compact.graph.node[0].output == ["k"]


def test_metadata_opset_and_documentation_stay() -> None:
    model = build("stackedunets", width=2)
    model.doc_string, model.graph.doc_string = "model", "graph"
    model.graph.node[0].doc_string = "node"
    onnx.helper.set_model_props(model, {"key": "value"})
    space = analyze(model)
    compact = construct(zeroed(model, [next(g for g in space.groups if g.name == "bn75")]), space)
    assert (compact.ir_version, compact.opset_import) == (model.ir_version, model.opset_import)
    assert (compact.doc_string, compact.graph.doc_string, compact.graph.name) == ("model", "graph", "stackedunets")
    assert (compact.graph.node[0].doc_string, compact.metadata_props) == ("node", model.metadata_props)
    inferred = {v.name for v in compact.graph.value_info}
    assert inferred and inferred <= {name for node in compact.graph.node for name in node.output}


def test_protected_structures_stay_at_zero() -> None:
    model = parsed("a = Conv (x, w1)  c = Conv (x, w2)  y = Add (a, c)")
    groups = {s.tensor: s.group for s in analyze(model).candidates}
    full = zeroed(model, [groups["a"]])
    assert operators(construct(full, analyze(model, protect=["a"]))) == ["Conv", "Conv", "Add"]
    assert operators(construct(full)) == ["Conv", "Identity"]


def test_negative_zero_is_zero_and_nan_is_not() -> None:
    model = parsed("a = Conv (x, w1)  y = Add (a, x)")
    space = analyze(model)
    for value, expected in ((-0.0, (0,)), (np.nan, ()), (1e-45, ())):
        full = zeroed(model, ())
        weight = np.full((4, 4, 1, 1), -0.0, np.float32)
        weight[1, 2] = value
        tensor = next(t for t in full.graph.initializer if t.name == "w1")
        tensor.CopyFrom(onnx.numpy_helper.from_array(weight, "w1"))
        assert zero_structures(space.bind(full), space.bind(full).graph) == expected  # type: ignore[arg-type]


def test_the_space_of_another_model_is_refused() -> None:
    space = analyze(build("stackedunets", width=2))
    with pytest.raises(SpaceError, match="another model"):
        construct(build("stackedunets", width=3), space)


def test_what_is_removed_counts_as_zero_in_the_constants_that_stay() -> None:
    """Of the model as it is, with nothing at zero yet: b is dead, since the sum is a number, but was asked for too."""
    model = parsed(
        "a0 = Conv <pads=[2,2,2,2]> (x, w1)  a1 = Conv <pads=[2,2,2,2]> (x, w2)  a = Add (a0, a1)  r = Relu (a)"
        "  b = Conv (r, w3)  c0 = Conv (r, w4)  c = BatchNormalization (c0, w1s, w2s, w3s, variance4)"
        "  s = Add (b, c)  t = Add (s, x)  y = Relu (t)"
    )
    shapes = {"w1": (4, 4, 5, 5), "w2": (4, 4, 5, 5), "w3": (4, 4, 1, 1), "w4": (4, 4, 1, 1)}
    shapes |= dict.fromkeys(("w1s", "w2s", "w3s", "variance4"), (4,))
    random = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, shape in shapes.items():
        values = np.abs(random.standard_normal(shape)) + 0.1
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    space = analyze(model)
    assert space.graph is not None
    names = [s.tensor for s in space.candidates]
    chosen = [names.index(name) for name in ("a0", "a1", "b")]
    full = zeroed(model, [space.candidates[i].group for i in chosen])
    assert difference(outputs_of(full), outputs_of(remove(space, space.graph, chosen))) <= TOLERANCE
