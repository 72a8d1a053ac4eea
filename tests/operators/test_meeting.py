"""Broadcast operands: what is tied, mixed or sliced where labels meet, and which results are zero."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest

from onnx_asgnas.operators.meeting import combine
from tests.operators.cutting import cut_half, free_groups, model_of, normal, sizes_of
from tests.operators.labelling import constants_of, coupling_of, groups_at, reasons

ARRAYS = {
    "w": normal(5, 12),
    "v": normal(5, 12, seed=1),
    "u": normal(5, 4, seed=2),
    "end": normal(12, 3, seed=3),
    "head": normal(4, 1, seed=4),
    "inner": normal(3, seed=5),
    "both": normal(4, 3, seed=6),
    "row": normal(12, seed=7),
    "other": normal(1, 5, seed=8),
    "zero": np.float32(0),
    "seven": np.float32(7),
    "small": np.float32(1e-9),
    "to_heads": np.array([0, 0, 4, 3], np.int64),
    "back": np.array([0, 0, 12], np.int64),
    "axis3": np.array([3], np.int64),
}

HEADS = "h = MatMul (x, w)  s = Reshape (h, to_heads)  "
END = "  m = Reshape (r, back)  y = MatMul (m, end)"


def heads(text: str, inputs: str = "") -> str:
    """A model of text on s [N, 2, heads 4, places 3] that gives r."""
    return f"(float[N, 2, 5] x{inputs}) => (float[N, 2, 3] y) {{ {HEADS} {text} {END} }}"


ROWS = [[0] * 3, [1] * 3, [2] * 3, [3] * 3]
COLUMNS = [[0, 1, 2]] * 4
ONE_BY_ONE = np.arange(12).reshape(4, 3).tolist()


def test_two_activations_are_tied_place_by_place() -> None:
    text = """(float[N, 5] x) => (float[N, 3] y) { a = MatMul (x, w)  b = MatMul (x, v)  r = Add (a, b)
        y = MatMul (r, end) }"""
    model = model_of(text, ARRAYS)
    coupling = coupling_of(model)
    assert groups_at(coupling, "r").tolist() == [list(range(12))]
    assert np.array_equal(coupling.book.tensors["a"].ids, coupling.book.tensors["r"].ids)
    compact = sizes_of(cut_half(model).compact)
    assert (compact["w"], compact["v"], compact["end"]) == ([5, 6], [5, 6], [6, 3])


@pytest.mark.parametrize(
    ("text", "inputs", "expected"),
    [
        ("r = Mul (s, m0)", ", float[1, 1, 1, 3] m0", ROWS),  # rotary tables differ along the places of a head
        ("r = Mul (s, m0)", ", float[1, 1, 4, 1] m0", COLUMNS),
        ("r = Mul (s, m0)", ", float[N, 2, 1, 1] m0", ROWS),  # no axis of channels: rows are more groups than columns
        ("r = Mul (s, m0)", ", float[N, 2, 4, 3] m0", None),
        ("r = Mul (s, head)", "", ROWS),
        ("r = Mul (s, inner)", "", ROWS),
        ("r = Mul (s, both)", "", ROWS),
        ("r = Mul (s, seven)", "", ROWS),
    ],
)
def test_what_has_no_labels_along_a_labelled_axis_mixes_it(
    text: str, inputs: str, expected: list[list[int]] | None
) -> None:
    coupling = coupling_of(model_of(heads(text, inputs), ARRAYS))
    if expected is None:
        assert groups_at(coupling, "s").max() == -1
        assert "Mul with an operand whose channels cannot leave" in "".join(reasons(coupling))
    else:
        assert groups_at(coupling, "s")[0, 0].tolist() == expected


def test_a_weight_is_sliced_along_the_heads_and_not_along_their_places() -> None:
    for name, left in (("head", [2, 1]), ("inner", [3]), ("both", [2, 3])):
        compact = sizes_of(cut_half(model_of(heads(f"r = Mul (s, {name})"), ARRAYS)).compact)
        assert (compact[name], compact["w"]) == (left, [5, 6])


def test_a_bias_of_heads_is_zeroed_with_them_and_one_along_their_places_keeps_them() -> None:
    """A vector along the places is added to every head, so that none is zero."""
    assert free_groups(cut_half(model_of(heads("r = Add (s, both)"), ARRAYS))) == 4
    coupling = coupling_of(model_of(heads("r = Add (s, inner)"), ARRAYS))
    assert groups_at(coupling, "s").max() == -1
    assert "MatMul reads a value that is not zero when the channel's variables are" in reasons(coupling)


def test_labels_on_different_axes_are_mixed_along_the_inner_one() -> None:
    """[N, 4, 1] and [N, 1, 3]: an array of labels holds one label at each place, so they cannot both go on."""
    text = """(float[N, 2, 5] x) => (float[N, 2, 3] y) { a0 = MatMul (x, u)  a = Unsqueeze (a0, axis3)
        h = MatMul (x, w)  s = Reshape (h, to_heads)  r = Mul (s, a)  m = Reshape (r, back)  y = MatMul (m, end) }"""
    model = model_of(text, ARRAYS)
    assert groups_at(coupling_of(model), "a")[0, 0].tolist() == [[0], [1], [2], [3]]
    compact = sizes_of(cut_half(model).compact)
    assert (compact["u"], compact["w"], compact["end"]) == ([5, 2], [5, 6], [6, 3])


def test_a_weight_of_another_axis_ends_what_does_not_vary_there() -> None:
    """A weight [1, 1, 5] beside channels on axis 1: nothing of it is cut, and the channels go on."""
    text = """(float[N, 4, 5] x) => (float[N, 3, 5] y) {
        h = MatMul (w4, x)  r = Mul (h, other)  y = MatMul (end3, r) }"""
    arrays = ARRAYS | {"w4": normal(6, 4), "end3": normal(3, 6, seed=1)}
    compact = sizes_of(cut_half(model_of(text, arrays)).compact)
    assert compact == {"w4": [3, 4], "other": [1, 5], "end3": [3, 3]}


def test_a_weight_beside_an_activation_of_size_one_makes_channels() -> None:
    """X [N, 1] times a row of weights: as x times a matrix. A sum of both is not zero where the weight is."""
    text = "(float[N, 1] x) => (float[N, 3] y) { r = Mul (x, row)  y = MatMul (r, end) }"
    compact = sizes_of(cut_half(model_of(text, ARRAYS)).compact)
    assert compact == {"row": [6], "end": [6, 3]}
    assert coupling_of(model_of(text.replace("Mul (x", "Add (x"), ARRAYS)).channel_groups() == (15, 0)
    number = model_of(text.replace("row", "seven").replace("end", "single"), ARRAYS | {"single": normal(1, 3)})
    assert coupling_of(number).channel_groups() == (3, 0)


@pytest.mark.parametrize("shape", ["t = Identity (shape)", "n = Shape <end = 1> (x)  t = Concat <axis = 0> (n, last)"])
def test_a_repeated_operand_is_broadcast_once_channels_leave(shape: str) -> None:
    """What repeats one number along the channels has length one there afterwards, the other axes stay as they are."""
    text = f"""(float[N, 5] x, float[1, 1] p) => (float[N, 3] y) {{ h = MatMul (x, w)  {shape}
        e = Expand (p, t)  f = Mul (e, p)  r = Mul (h, f)  y = MatMul (r, end) }}"""
    arrays = ARRAYS | {"shape": np.array([1, 12], np.int64), "last": np.array([12], np.int64)}
    compact = cut_half(model_of(text, arrays)).compact
    assert sizes_of(compact)["w"] == [5, 6]
    assert constants_of(compact) == ([[1, 1]] if "Identity" in shape else [[1]])


def test_a_repeated_operand_that_others_read_keeps_the_channels() -> None:
    text = """(float[N, 5] x, float[1, 1] x1) => (float[N, 3] y, float[1, 1] z) { h = MatMul (x, w)
        e = Expand (x1, shape)  r = Mul (h, e)  y = MatMul (r, end)  z = ReduceSum (e) }"""
    result = coupling_of(model_of(text, ARRAYS | {"shape": np.array([1, 12], np.int64)}))
    assert groups_at(result, "h").max() == -1


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("g = Sigmoid (b)  r = Mul (a, g)", True),
        ("g = Sigmoid (b)  r = Add (a, g)", False),
        ("g = Sigmoid (b)  r = Max (a, g)", False),
        ("r = Max (a, b, b)", True),
        ("c = Less (a, b)  r = Where (c, a, b)", True),
        ("c = Less (a, b)  g = Sigmoid (b)  r = Where (c, a, g)", False),
        ("r = Div (a, seven)", True),
        ("r = Div (a, b)", False),
        ("q = Sigmoid (b)  r = Div (a, q)", False),
        ("q = Abs (b)  r = Pow (q, seven)", True),
        ("q = Abs (b)  r = Pow (seven, q)", False),
        ("r = Add (a, zero)", True),
        ("r = Add (a, small)", False),
        ("r = Sub (a, row)", False),
        ("r = Add (a, row)", True),
        ("r = Mul (a, row)", True),
    ],
)  # fmt: skip
def test_channels_leave_where_the_result_is_zero_with_them(text: str, free: bool) -> None:
    head = "(float[N, 5] x) => (float[N, 3] y) { a = MatMul (x, w)  b = MatMul (x, v)"
    model = model_of(f"{head} {text}  y = MatMul (r, end) }}", ARRAYS)
    assert coupling_of(model).channel_groups()[1] == (12 if free else 0)
    if free:
        cut_half(model)


def test_bits_are_combined_by_the_truth_table() -> None:
    table = np.array(list(product([False, True], repeat=3))).T
    rules = (all, any, lambda zero: zero[0], lambda zero: zero[1] and zero[2], lambda zero: False)
    for rule in rules:
        expected = [rule(tuple(bool(b) for b in column)) for column in table.T]
        assert combine(list(table), rule).tolist() == expected


def test_an_old_broadcast_attribute_and_unknown_shapes_keep_the_channels() -> None:
    text = """(float[2, 5] x) => (float[2, 3] y) { h = MatMul (x, w)
        r = Add <broadcast = 1, axis = 1> (h, row)  y = MatMul (r, end) }"""
    assert "Add broadcasts as before operator set 7" in reasons(coupling_of(model_of(text, ARRAYS, opset=6)))
    text = """(float[2, 5] x, int64[k] i) => (float[2, 3] y) { h = MatMul (x, w)  q = our.own.Twist (x)
        r = Add (h, q)  y = MatMul (r, end) }"""
    model = model_of(text, ARRAYS)
    model.opset_import.append(onnx.helper.make_opsetid("our.own", 1))
    assert "the shape of an operand is unknown" in reasons(coupling_of(model))
