"""Transforms and unusual convolutions between dense layers: what may leave does, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_asgnas.space import analyze
from tests.operators.cutting import attributes_of, cut_half, free_groups, model_of, normal, sizes_of

WEIGHTS = {
    "first": normal(8, 4, 1, 1),
    "last": normal(3, 8, 1, 1),
    "flat_last": normal(8, 3),
    "one": np.int64(1),
    "two": np.int64(2),
    "size": np.array([8, 4], np.int64),
    "deep": normal(6, 8, 2, 2),
    "b": normal(6),
    "last6": normal(3, 6, 1, 1),
    "offset": normal(8, 4, 1, 1, seed=4) / 4,
    "seq_first": normal(8, 4, 1),
    "causal": normal(8, 1, 3),
    "b8": normal(8),
    "seq_last": normal(3, 8, 1),
}
IMAGE = "(float[N, 4, 6, 6] x) => (float y)"


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (17, "f = DFT <axis = 2> (p)"),
        (20, "f = DFT (p, , two)"),
        (20, "f = DFT <inverse = 1> (p)"),
    ],
)
def test_a_transform_of_another_axis_lets_channels_pass(opset: int, node: str) -> None:
    text = """(float[2, 4, 6, 1] x) => (float[2, 3, 6, 2] y) {
        p = Conv (x, first)  %s  y = Conv (f, last)
    }"""
    result = cut_half(model_of(text % node, WEIGHTS, opset, ir=8 if opset < 20 else 10), by_reference=True)
    assert free_groups(result) == 8
    assert sizes_of(result.compact)["last"] == [3, 4, 1, 1]


def test_a_transform_along_the_channels_keeps_them() -> None:
    text = """(float[2, 4, 6, 1] x) => (float[2, 8, 6, 2] y) {
        p = Conv (x, first)  y = DFT <axis = 1> (p)
    }"""
    space = analyze(model_of(text, WEIGHTS), mode="prune")
    assert space.channels.count == 0
    assert any("DFT sums" in f.reason for f in space.frozen)


def test_a_determinant_by_channel() -> None:
    text = "(float[N, 4, 3, 3] x) => (float[N, 3] y) { p = Conv (x, first)  d = Det (p)  y = MatMul (d, flat_last) }"
    result = cut_half(model_of(text, WEIGHTS))
    assert free_groups(result) == 8 and sizes_of(result.compact)["flat_last"] == [4, 3]


def test_cutting_and_filling_the_borders() -> None:
    text = """(float[N, 4, 6, 6] x) => (float[N, 3, 8, 4] y) {
        p = Conv (x, first)  c = CenterCropPad <axes = [2, 3]> (p, size)  y = Conv (c, last)
    }"""
    result = cut_half(model_of(text, WEIGHTS, 18))
    assert free_groups(result) == 8 and sizes_of(result.compact)["last"] == [3, 4, 1, 1]


def test_a_deformable_convolution_between_others() -> None:
    text = """(float[2, 4, 6, 6] x) => (float[2, 3, 5, 5] y) {
        p = Conv (x, first)  o = Conv (x, offset)  o5 = AveragePool <kernel_shape = [2, 2]> (o)
        d = DeformConv <kernel_shape = [2, 2]> (p, deep, o5, b)  y = Conv (d, last6)
    }"""
    result = cut_half(model_of(text, WEIGHTS, 19, ir=9), by_reference=True)
    assert free_groups(result) == 8 + 6
    sizes = sizes_of(result.compact)
    assert sizes["first"] == [4, 4, 1, 1] and sizes["deep"] == [3, 4, 2, 2] and sizes["last6"] == [3, 3, 1, 1]
    assert sizes["offset"] == [8, 4, 1, 1]


@pytest.mark.parametrize("kind", ["none", "silu"])
def test_a_causal_convolution(kind: str) -> None:
    text = """(float[2, 4, 6] x) => (float[2, 3, 6] y) {
        p = Conv (x, seq_first)
        c, s = CausalConvWithState <activation = "%s"> (p, causal, b8)
        y = Conv (c, seq_last)
    }"""
    result = cut_half(model_of(text % kind, WEIGHTS, 27, ir=13), by_reference=True)
    assert free_groups(result) == 8
    sizes = sizes_of(result.compact)
    assert sizes["causal"] == [4, 1, 3] and sizes["b8"] == [4] and sizes["seq_last"] == [3, 4, 1]


@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("rule", ["linear", "gated_delta"])
def test_linear_attention(keys: int, rule: str) -> None:
    text = """(float[2, 5, 6] x) => (float[2, 5, 3] y) {
        q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
        g0 = MatMul (x, wg)  g = Neg (g0)  b = MatMul (x, wb)
        a, s = LinearAttention <q_num_heads = 4, kv_num_heads = %d, update_rule = "%s"> (q, k, v, %s)
        y = MatMul (a, wo)
    }"""
    arrays = {
        "wq": normal(6, 8) / 4,
        "wk": normal(6, 2 * keys, seed=1) / 4,
        "wv": normal(6, 3 * keys, seed=2),
        "wg": normal(6, keys, seed=3) / 4,
        "wb": normal(6, keys, seed=4) / 4,
        "wo": normal(12, 3, seed=5),
    }
    more = ", , g, b".removeprefix(", ") if rule == "gated_delta" else ""
    model = model_of((text % (keys, rule, more)).replace(", )", ")"), arrays, 27, ir=13)
    result = cut_half(model, by_reference=True)
    assert free_groups(result) == keys
    (attributes,) = attributes_of(result.compact, "LinearAttention")
    assert attributes["q_num_heads"] == 2 and attributes["kv_num_heads"] == keys // 2
    assert sizes_of(result.compact)["wo"] == [6, 3]
