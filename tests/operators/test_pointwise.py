"""Operators that work on each element by itself: those that the chain tests behind a Concat do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_asgnas.space import analyze
from tests.operators.cutting import cut_half, free_groups, model_of, normal, sizes_of

WEIGHTS = {
    "first": normal(6, 8),
    "other": normal(6, 8, seed=3),
    "last": normal(8, 5),
    "vector": normal(8, seed=4),
    "axis": np.int64(1),
    "shape": np.array([0, 4, 8], np.int64),
}
HEAD = "(float[N, 6] x) => (float[N, 5] y) { a = MatMul (x, first)  b = MatMul (x, other) %s y = MatMul (r, last) }"


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("r = Mean (a, b)", 13),
        ("r = Swish (a)", 24),
        ("r = SwiGLU (a, b)", 28),
        ("i = Cast <to = 7> (a)  j = Cast <to = 7> (b)  k = BitwiseAnd (i, j)  r = Cast <to = 1> (k)", 18),
        ("i = Cast <to = 7> (a)  j = Cast <to = 7> (b)  k = BitwiseXor (i, j)  r = Cast <to = 1> (k)", 18),
        ("c = CastLike (a, b)  r = Add (c, b)", 19),
    ],
)
def test_two_layers_that_meet_leave_together(node: str, opset: int) -> None:
    result = cut_half(model_of(HEAD % node, WEIGHTS, opset, ir=8 if opset < 20 else 13), by_reference=True)
    assert free_groups(result) == 8
    assert sizes_of(result.compact)["last"] == [4, 5]


def test_the_type_that_a_cast_is_like_is_in_nobodys_way() -> None:
    node = "c = CastLike (a, b)  s = Relu (b)  z = MatMul (s, last)  r = Relu (c)"
    text = (HEAD % node).replace("(float[N, 5] y)", "(float[N, 5] y, float[N, 5] z)")
    model = model_of(text.replace("(s, last)", "(s, last2)"), WEIGHTS | {"last2": normal(8, 5, seed=6)}, 19)
    assert analyze(model, mode="prune").channels.count == 16


@pytest.mark.parametrize("node", ["r = BitCast <to = 1> (k)", "n = BitwiseNot (k)  r = Cast <to = 1> (n)"])
def test_what_is_not_zero_for_zero_keeps_the_channels(node: str) -> None:
    text = HEAD % f"k = Cast <to = 6> (a)  {node}"
    space = analyze(model_of(text, WEIGHTS, 26, ir=13), mode="prune")
    assert space.channels.count == 0
    assert any("is not zero" in f.reason for f in space.frozen)


def test_operands_that_broadcast_by_an_axis_keep_their_channels() -> None:
    """Before operator set 7 an operand was laid along an axis that is named."""
    text = """(float[N, 8, 8] x, float[8] v) => (float[N, 8, 5] y) {
        a = MatMul (x, square)  r = Add <broadcast = 1, axis = 1> (a, v)  y = MatMul (r, last)
    }"""
    space = analyze(model_of(text, WEIGHTS | {"square": normal(8, 8)}, 6), mode="prune")
    assert space.channels.count == 0
    assert any("before operator set 7" in f.reason for f in space.frozen)


def test_a_slope_by_channel_before_operator_set_7_keeps_the_channels() -> None:
    text = """(float[N, 6, 8] x) => (float[N, 5, 8] y) {
        a = Conv (x, c1)  r = PRelu (a, vector)  y = Conv (r, c2)
    }"""
    arrays = WEIGHTS | {"c1": normal(8, 6, 1), "c2": normal(5, 8, 1)}
    assert analyze(model_of(text, arrays, 6), mode="prune").channels.count == 0


@pytest.mark.parametrize(("exclusive", "free"), [(0, 8), (1, 0)])
def test_a_product_of_none_is_one(exclusive: int, free: int) -> None:
    text = """(float[N, 4, 6] x) => (float[N, 4, 5] y) {
        a = MatMul (x, first)  r = CumProd <exclusive = %d> (a, axis)  y = MatMul (r, last)
    }"""
    space = analyze(model_of(text % exclusive, WEIGHTS, 26, ir=13), mode="prune")
    assert space.channels.count == free


@pytest.mark.parametrize(("opset", "free"), [(17, 0), (22, 8)])
def test_a_norm_of_zero_divides_nothing_from_operator_set_22_on(opset: int, free: int) -> None:
    text = """(float[N, 4, 6] x) => (float[N, 4, 5] y) {
        a = MatMul (x, first)  r = LpNormalization <axis = 1> (a)  y = MatMul (r, last)
    }"""
    model = model_of(text, WEIGHTS, opset, ir=8 if opset < 20 else 10)
    assert analyze(model, mode="prune").channels.count == free
    if free:
        assert sizes_of(cut_half(model, by_reference=True).compact)["last"] == [4, 5]
