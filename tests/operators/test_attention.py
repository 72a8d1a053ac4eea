"""Whole attention operators between dense layers: heads leave, with their key-value head, and the counts follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_asgnas.space import analyze
from tests.operators.cutting import (
    Array,
    attributes_of,
    cut_half,
    free_groups,
    model_of,
    normal,
    sizes_of,
)

HEADS, WIDE, HIDDEN = 4, 3, 12


def projections(queries: int = HEADS, keys: int = HEADS, wide: int = WIDE, value: int = WIDE) -> dict[str, Array]:
    return {
        "wq": normal(6, queries * wide, seed=1),
        "bq": normal(queries * wide, seed=2),
        "wk": normal(6, keys * wide, seed=3),
        "wv": normal(6, keys * value, seed=4),
        "wo": normal(queries * value, 5, seed=5),
        "mask": normal(queries, 7, 7),
        "flat_mask": normal(7, 7),
    }


PROJECT = """(float[N, 7, 6] x) => (float[N, 7, 5] y) {
    q0 = MatMul (x, wq)  q = Add (q0, bq)  k = MatMul (x, wk)  v = MatMul (x, wv)
    %s
    y = MatMul (a, wo)
}"""
MODERN: dict[str, Any] = {"opset": 23, "ir": 11}


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("mask", ["", ", mask", ", flat_mask"])
def test_standard_attention_of_packed_heads(opset: int, keys: int, mask: str) -> None:
    node = f"a = Attention <q_num_heads = 4, kv_num_heads = {keys}> (q, k, v{mask})"
    model = model_of(PROJECT % node, projections(keys=keys, value=2), opset=opset, ir=11)
    result = cut_half(model, by_reference=True)
    assert free_groups(result) == keys
    (attributes,) = attributes_of(result.compact, "Attention")
    assert attributes["q_num_heads"] == 2 and attributes["kv_num_heads"] == keys // 2
    sizes = sizes_of(result.compact)
    assert sizes["wq"] == [6, 6] and sizes["bq"] == [6] and sizes["wo"] == [4, 5]
    assert sizes["wk"] == [6, 3 * keys // 2] and sizes["wv"] == [6, keys]
    if mask == ", mask":
        assert sizes["mask"] == [2, 7, 7]


def test_standard_attention_of_heads_on_an_axis_of_their_own() -> None:
    node = """q4 = Reshape (q, shape)  q3 = Transpose <perm = [0, 2, 1, 3]> (q4)
        k4 = Reshape (k, shape)  k3 = Transpose <perm = [0, 2, 1, 3]> (k4)
        v4 = Reshape (v, shape)  v3 = Transpose <perm = [0, 2, 1, 3]> (v4)
        r = RotaryEmbedding (q3, cos, sin)
        a4 = Attention <is_causal = 1> (r, k3, v3)
        a3 = Transpose <perm = [0, 2, 1, 3]> (a4)  a = Reshape (a3, flat)"""
    arrays = projections(wide=4, value=4) | {
        "shape": np.array([0, 0, 4, 4], np.int64),
        "flat": np.array([0, 0, 16], np.int64),
        "cos": normal(1, 7, 2),
        "sin": normal(1, 7, 2, seed=9),
    }
    text = PROJECT.replace("[N,", "[1,") % node
    result = cut_half(model_of(text, arrays, **MODERN), by_reference=True)
    assert free_groups(result) == 4
    assert sizes_of(result.compact)["wo"] == [8, 5]


def test_rotary_embedding_of_packed_heads_counts_them_anew() -> None:
    node = """rq = RotaryEmbedding <num_heads = 4> (q, cos, sin)
        a = Attention <q_num_heads = 4, kv_num_heads = 4> (rq, k, v)"""
    arrays = projections(wide=4, value=4) | {"cos": normal(1, 7, 2), "sin": normal(1, 7, 2, seed=9)}
    result = cut_half(model_of(PROJECT.replace("[N,", "[1,") % node, arrays, **MODERN), by_reference=True)
    assert attributes_of(result.compact, "RotaryEmbedding") == [{"num_heads": 2}]


def test_a_cache_keeps_all_heads() -> None:
    text = """(float[1, 7, 6] x, float[1, 4, P, 3] pk, float[1, 4, P, 3] pv) => (float[1, 7, 5] y, float[1,4,T,3] nk) {
        q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
        a, nk, nv = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v, , pk, pv)
        y = MatMul (a, wo)
    }"""
    space = analyze(model_of(text, projections(), **MODERN), mode="prune")
    assert space.channels.count == 0
    assert "a cache holds all heads" in {f.reason for f in space.frozen}


def test_keys_that_are_given_keep_all_heads() -> None:
    text = """(float[1, 7, 6] x, float[1, 7, 12] k) => (float[1, 7, 5] y) {
        q = MatMul (x, wq)  v = MatMul (x, wv)
        a = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)
        y = MatMul (a, wo)
    }"""
    space = analyze(model_of(text, projections(), **MODERN), mode="prune")
    assert space.channels.count == 0
    assert any(f.op_type == "Attention" and "heads that cannot leave" in f.reason for f in space.frozen)


def test_a_mask_by_head_that_is_fed_keeps_them() -> None:
    text = """(float[1, 7, 6] x, float[1, 4, 7, 7] m) => (float[1, 7, 5] y) {
        q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
        a = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v, m)
        y = MatMul (a, wo)
    }"""
    space = analyze(model_of(text, projections(), **MODERN), mode="prune")
    assert space.channels.count == 0
    assert any("mask or bias" in f.reason for f in space.frozen)


RUNTIME = {"opset": 17, "microsoft": 1}


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention_of_the_runtime(bias: bool) -> None:
    more = ", b, , bias4" if bias else ""
    arrays = projections() | {"b": normal(36), "bias4": normal(1, 4, 7, 7)}
    node = f"a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v{more})"
    text = PROJECT.replace("[N,", "[1,") if bias else PROJECT  # the runtime's kernel reads past a bias of one batch
    result = cut_half(model_of(text % node, arrays, **RUNTIME))
    assert free_groups(result) == 4
    assert attributes_of(result.compact, "MultiHeadAttention")[0]["num_heads"] == 2
    sizes = sizes_of(result.compact)
    assert sizes["wq"] == sizes["wk"] == sizes["wv"] == [6, 6] and sizes["wo"] == [6, 5]
    if bias:
        assert sizes["b"] == [18] and sizes["bias4"] == [1, 2, 7, 7]


def test_packed_multi_head_attention_of_the_runtime() -> None:
    text = """(float[N, 7, 6] x) => (float[N, 7, 5] y) {
        p = MatMul (x, wp)  p5 = Reshape (p, shape)
        a = com.microsoft.MultiHeadAttention <num_heads = 4> (p5)
        y = MatMul (a, wo)
    }"""
    arrays = {"wp": normal(6, 36), "wo": normal(12, 5), "shape": np.array([0, 0, 4, 3, 3], np.int64)}
    model = model_of(text, arrays, **RUNTIME)
    space = analyze(model, mode="prune")  # the runtime has no kernel for this form on CPUs
    assert space.channels.count == 4


@pytest.mark.parametrize("sizes", [(12, 12, 12), (12, 12, 8)])
def test_attention_with_its_own_weights(sizes: tuple[int, int, int]) -> None:
    text = """(float[N, 7, 6] x) => (float[N, 7, 5] y) {
        h = MatMul (x, first)  r = Relu (h)
        a = com.microsoft.Attention <num_heads = 4, qkv_hidden_sizes = [%d, %d, %d]> (r, w, b)
        y = MatMul (a, wo)
    }"""
    arrays = {
        "first": normal(6, 8),
        "w": normal(8, sum(sizes)),
        "b": normal(sum(sizes)),
        "wo": normal(sizes[2], 5),
    }
    result = cut_half(model_of(text % sizes, arrays, **RUNTIME))
    assert free_groups(result) == 4 + 8
    left = sizes_of(result.compact)
    assert left == {"first": [6, 4], "w": [4, sum(sizes) // 2], "b": [sum(sizes) // 2], "wo": [sizes[2] // 2, 5]}
    (attributes,) = attributes_of(result.compact, "Attention")
    assert attributes["num_heads"] == 2 and attributes["qkv_hidden_sizes"] == [n // 2 for n in sizes]


@pytest.mark.parametrize("packed", [False, True])
def test_group_query_attention_of_the_runtime(packed: bool) -> None:
    text = """(float[1, 7, 6] x) => (float[1, 7, 5] y) {
        q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)  p = MatMul (x, wp)
        a, nk, nv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1>
            (%s, , , lengths, total, cos, sin)
        y = MatMul (a, wo)
    }"""
    arrays = projections(keys=2, wide=16, value=16) | {
        "wp": normal(6, 128),
        "lengths": np.array([6], np.int32),
        "total": np.array([7], np.int32),
        "cos": normal(16, 8),
        "sin": normal(16, 8, seed=3),
    }
    result = cut_half(model_of(text % ("p, , " if packed else "q, k, v"), arrays, **RUNTIME))
    assert free_groups(result) == 2
    sizes = sizes_of(result.compact)
    assert sizes["wo"] == [32, 5] and (sizes["wp"] == [6, 64] if packed else sizes["wk"] == [6, 16])
    (attributes,) = attributes_of(result.compact, "GroupQueryAttention")
    assert attributes["num_heads"] == 2 and attributes["kv_num_heads"] == 1


def test_rotary_embedding_of_the_runtime() -> None:
    node = """r = com.microsoft.RotaryEmbedding (q, ids, cos, sin)
        a = com.microsoft.MultiHeadAttention <num_heads = 4> (r, k, v)"""
    arrays = projections(wide=4, value=4) | {
        "ids": np.array([0], np.int64),
        "cos": normal(16, 2),
        "sin": normal(16, 2, seed=9),
    }
    result = cut_half(model_of(PROJECT % node, arrays, **RUNTIME))
    assert free_groups(result) == 4
