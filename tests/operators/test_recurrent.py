"""Recurrent networks between dense layers: input channels leave, and units in all gates and both directions."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_asgnas import Target
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import trainable_parameters
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import analyze
from tests.operators.cutting import Array, attributes_of, cut_half, free_groups, model_of, normal, sizes_of

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
UNITS, READ = 6, 8


def weights(kind: str, directions: int = 1) -> dict[str, Array]:
    rows = GATES[kind] * UNITS
    return {
        "first": normal(5, READ),
        "w": normal(directions, rows, READ) / 2,
        "r": normal(directions, rows, UNITS) / 2,
        "b": normal(directions, 2 * rows) / 2,
        "p": normal(directions, 3 * UNITS),
        "last": normal(directions * UNITS, 3),
        "flat": np.array([0, 0, -1], np.int64),
        "lengths": np.array([4, 2, 3], np.int32),
        "zeros": np.zeros((directions, 1, UNITS), np.float32),
        "state": normal(directions, 1, UNITS),
        "one": np.array([1], np.int64),
        "axis": np.array([0], np.int64),
        "bounds": np.array([0], np.int64),
        "ends": np.array([directions], np.int64),
        "ends2": np.array([2 * directions], np.int64),
        "zero": np.float32(0),
    }


LAYER = """(float[T, %s, 5] x) => (float[T, %s, 3] y) {
    h = MatMul (x, first)  q = Relu (h)
    %s
    s, sh = %s <hidden_size = 6, direction = "%s" %s> (q, w, r, b%s)
    t = Transpose <perm = [0, 2, 1, 3]> (s)  f = Reshape (t, flat)
    y = MatMul (f, last)
}"""


def layer(
    kind: str, directions: int = 1, batch: str = "N", before: str = "", more: str = "", attributes: str = ""
) -> str:
    direction = "bidirectional" if directions == 2 else "forward"
    return LAYER % (batch, batch, before, kind, direction, attributes, more)


@pytest.mark.parametrize("opset", [7, 14, 17, 22])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", GATES)
def test_units_and_input_channels_leave(kind: str, directions: int, opset: int) -> None:
    model = model_of(layer(kind, directions), weights(kind, directions), opset, ir=8 if opset < 20 else 10)
    result = cut_half(model, by_reference=opset == 22)
    assert free_groups(result) == READ + UNITS
    rows, sizes = GATES[kind] * UNITS // 2, sizes_of(result.compact)
    assert sizes["first"] == [5, 4] and sizes["last"] == [directions * 3, 3]
    assert sizes["w"] == [directions, rows, 4] and sizes["r"] == [directions, rows, 3]
    assert sizes["b"] == [directions, 2 * rows]
    assert attributes_of(result.compact, kind)[0]["hidden_size"] == 3


@pytest.mark.parametrize("kind", GATES)
def test_weights_of_each_direction_that_are_laid_together(kind: str) -> None:
    """As exporters write what a framework holds by direction: the rows of both go to zero, and leave."""
    arrays = weights(kind, 2)
    parts = {f"{name}{at}": arrays[name][at : at + 1] for name in "wrb" for at in range(2)}
    before = "\n".join(f"{name} = Concat <axis = 0> ({name}0, {name}1)" for name in "wrb")
    rest = {name: array for name, array in arrays.items() if name not in "wrb"}
    result = cut_half(model_of(layer(kind, 2, before=before), rest | parts))
    rows, sizes = GATES[kind] * UNITS // 2, sizes_of(result.compact)
    assert free_groups(result) == READ + UNITS
    assert all(sizes[f"w{at}"] == [1, rows, 4] and sizes[f"b{at}"] == [1, 2 * rows] for at in range(2))


@pytest.mark.parametrize("kind", GATES)
def test_lengths_and_a_state_of_zeros(kind: str) -> None:
    states = "lengths, zeros" if kind != "LSTM" else "lengths, zeros, zeros, p"
    arrays = weights(kind) | {"zeros": np.zeros((1, 3, UNITS), np.float32)}
    text = layer(kind, batch="3", more=f", {states}").replace("float[T", "float[7")
    model = model_of(text, arrays)
    result = cut_half(model)
    assert free_groups(result) == READ + UNITS
    assert sizes_of(result.compact)["zeros"] == [1, 3, 3]
    if kind == "LSTM":
        assert sizes_of(result.compact)["p"] == [1, 9]


def test_a_state_that_was_learned_leaves_with_its_units() -> None:
    model = model_of(layer("GRU", batch="1", more=", , state"), weights("GRU"))
    assert "state" in trainable_parameters(TraceGraph.of(model))
    result = cut_half(model)
    assert sizes_of(result.compact)["state"] == [1, 1, 3]


ZEROS = {
    "ConstantOfShape": """d = Shape (x)  n = Gather (d, one)  c = Concat <axis = 0> (ends, n, six)
        z = ConstantOfShape (c)""",
    "Expand": "d = Shape (x)  n = Gather (d, one)  c = Concat <axis = 0> (ends, n, six)  z = Expand (zero, c)",
    "sliced": """d = Shape (x)  n = Gather (d, one)  c = Concat <axis = 0> (ends2, n, six)  w0 = Expand (zero, c)
        z = Slice (w0, bounds, ends, axis)""",
}


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("kind", GATES)
def test_zeros_of_an_open_batch_shrink(kind: str, zeros: str) -> None:
    more = ", , z, z" if kind == "LSTM" else ", , z"
    arrays = weights(kind) | {"six": np.array([UNITS], np.int64)}
    result = cut_half(model_of(layer(kind, before=ZEROS[zeros], more=more), arrays))
    assert free_groups(result) == READ + UNITS
    assert sizes_of(result.compact)["last"] == [3, 3]


def test_two_layers_that_start_from_the_same_zeros() -> None:
    text = """(float[T, N, 5] x) => (float[T, N, 3] y) {
        h = MatMul (x, first)
        d = Shape (x)  n = Gather (d, one)  c = Concat <axis = 0> (ends, n, six)  z = ConstantOfShape (c)
        s = LSTM <hidden_size = 6> (h, w, r, b, , z, z)
        t = Squeeze (s, one)
        s2 = LSTM <hidden_size = 6> (t, w2, r2, b, , z, z)
        t2 = Squeeze (s2, one)
        y = MatMul (t2, last)
    }"""
    arrays = weights("LSTM") | {
        "six": np.array([UNITS], np.int64),
        "w2": normal(1, 24, 6),
        "r2": normal(1, 24, 6, seed=8),
    }
    result = cut_half(model_of(text, arrays))
    assert free_groups(result) == READ + UNITS
    sizes = sizes_of(result.compact)
    assert sizes["w2"] == [1, 12, 3] and sizes["r2"] == [1, 12, 3] and sizes["last"] == [3, 3]


def test_layers_that_start_from_parts_of_the_same_zeros() -> None:
    text = """(float[T, N, 5] x) => (float[T, N, 3] y) {
        h = MatMul (x, first)
        d = Shape (x)  n = Gather (d, one)  c = Concat <axis = 0> (ends2, n, six)  zs = Expand (zero, c)
        z = Slice (zs, bounds, ends, axis)  z2 = Slice (zs, ends, ends2, axis)
        s = LSTM <hidden_size = 6> (h, w, r, b, , z, z)
        t = Squeeze (s, one)
        s2 = LSTM <hidden_size = 6> (t, w2, r2, b, , z2, z2)
        t2 = Squeeze (s2, one)
        y = MatMul (t2, last)
    }"""
    arrays = weights("LSTM") | {
        "six": np.array([UNITS], np.int64),
        "w2": normal(1, 24, 6),
        "r2": normal(1, 24, 6, seed=8),
    }
    result = cut_half(model_of(text, arrays))
    assert free_groups(result) == READ + UNITS
    assert sizes_of(result.compact)["r"] == sizes_of(result.compact)["r2"] == [1, 12, 3]


def test_a_state_that_is_fed_keeps_the_units() -> None:
    text = layer("GRU", more=", , h0").replace("(float[T, N, 5] x)", "(float[T, N, 5] x, float[1, N, 6] h0)")
    space = analyze(model_of(text, weights("GRU")), mode="prune")
    assert space.channels.count == READ
    assert any("from a state that is not" in f.reason for f in space.frozen)


@pytest.mark.parametrize(
    ("kind", "activations", "free"),
    [
        ("RNN", '"Relu"', True),
        ("RNN", '"Sigmoid"', False),
        ("GRU", '"Sigmoid", "Sigmoid"', False),
        ("GRU", '"HardSigmoid", "Softsign"', True),
        ("LSTM", '"Sigmoid", "Relu", "Tanh"', True),
        ("LSTM", '"Sigmoid", "Sigmoid", "Tanh"', False),
        ("LSTM", '"Sigmoid", "Tanh", "Softplus"', False),
    ],
)
def test_units_leave_only_if_their_activations_keep_zero(kind: str, activations: str, free: bool) -> None:
    model = model_of(layer(kind, attributes=f", activations = [{activations}]"), weights(kind))
    result = cut_half(model)
    assert free_groups(result) == READ + (UNITS if free else 0)


@pytest.mark.parametrize("reset", [0, 1])
def test_a_gru_with_its_reset_before_or_behind(reset: int) -> None:
    model = model_of(layer("GRU", attributes=f", linear_before_reset = {reset}"), weights("GRU"))
    assert free_groups(cut_half(model)) == READ + UNITS


@pytest.mark.parametrize("kind", GATES)
def test_batches_first(kind: str) -> None:
    text = """(float[N, 7, 5] x) => (float[N, 3] y) {
        h = MatMul (x, first)  q = Relu (h)
        s, sh = %s <hidden_size = 6, layout = 1> (q, w, r, b)
        f = Squeeze (sh, one)
        y = MatMul (f, last)
    }"""
    result = cut_half(model_of(text % kind, weights(kind)), by_reference=True)
    assert free_groups(result) == READ + UNITS
    assert sizes_of(result.compact)["w"] == [1, GATES[kind] * 3, 4]


def test_the_cost_is_that_of_the_compact_model() -> None:
    result = cut(model_of(layer("LSTM", 2), weights("LSTM", 2)), Target(uniform=0.5), criterion="random")
    left = analyze(result.compact, mode="prune")
    assert result.kept["macs"] == pytest.approx(left.macs / result.space.macs)
    assert result.kept["params"] == pytest.approx(left.params / result.space.params)
