"""Attention, whole: the standard's operator, onnxruntime's, and rotary embeddings. Heads leave, not parts of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from onnx_asgnas.operators.heads import heads_of, keep_heads, tie_beside, tie_heads, write_heads
from onnx_asgnas.operators.labelled import Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, ZeroRule, first, never, register

MICROSOFT = "com.microsoft"
_CACHE = "a cache holds all heads"


@register("Attention", since_version=23)
def attention(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Attention.html: zero where the values are."""
    query, key, value = (op.size(p) for p in (0, 1, 2))
    rank = len(query)
    packed = rank == 3
    queries = op.attribute("q_num_heads") if packed else (query or (0, 0))[1]
    keys = op.attribute("kv_num_heads") if packed else (key or (0, 0))[1]

    def labels(flow: LabelFlow) -> None:
        axis = -1 if packed else 1
        parts = [heads_of(flow, p, n, axis) for p, n in ((0, queries), (1, keys), (2, keys))]
        if None in parts or not queries or not keys or queries % keys:
            flow.freeze_inputs("Attention of unknown shapes")
            return
        found = [part for part in parts if part is not None]
        heads = tie_heads(flow, found, keys)
        if op.has(4) or op.has(5):
            keep_heads(flow, found, _CACHE)
        tie_beside(flow, 3, -3, np.repeat(heads, queries // keys))
        if packed:
            flow.size_attribute("q_num_heads", found[0].ids)
            flow.size_attribute("kv_num_heads", found[1].ids)
        width = value[-1] // keys if packed else value[-1]
        write_heads(flow, found[2], queries // keys, rank, width)
        write_heads(flow, found[1], 1, 4, 1, output=1)
        write_heads(flow, found[2], 1, 4, 1, output=2)
        scores = found[0].slab([1])
        write_heads(flow, Labelled(scores.ids, np.zeros_like(scores.zero)), 1, 4, 1, output=3)

    macs = 0
    if rank in (3, 4) and key and value and queries and keys:
        wide = value[-1] // keys if packed else value[-1]
        deep = query[-1] // queries if packed else query[-1]
        macs = queries * query[-2] * key[-2] * (deep + wide)
    return Rule(labels=labels, zero=_values_are_zero(op, (2, 5)), macs=macs)


@register("LinearAttention", since_version=27)
def linear_attention(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LinearAttention.html: a recurrence by head, zero where the values are."""
    queries, keys = op.attribute("q_num_heads"), op.attribute("kv_num_heads")
    query, value = op.size(0), op.size(2)
    width = value[-1] // keys if value else 0

    def labels(flow: LabelFlow) -> None:
        positions = [(0, queries), *((p, keys) for p in (1, 2, 4, 5) if op.has(p))]
        parts = [heads_of(flow, p, n) for p, n in positions]
        found = [part for part in parts if part is not None]
        if None in parts or queries % keys:
            flow.freeze_inputs("LinearAttention of unknown shapes")
            return
        tie_heads(flow, found, keys)
        if op.has(3):
            keep_heads(flow, found, _CACHE)
        flow.size_attribute("q_num_heads", found[0].ids)
        flow.size_attribute("kv_num_heads", found[1].ids)
        write_heads(flow, found[2], queries // keys, 3, width)
        write_heads(flow, found[2], 1, 4, 1, output=1)

    deep = query[-1] // queries if query else 0
    return Rule(
        labels=labels,
        zero=_values_are_zero(op, (2, 3)),
        macs=(queries + keys) * query[1] * deep * width if query and value else 0,
    )


def _values_are_zero(op: Op, positions: tuple[int, ...]) -> ZeroRule:
    """Zero where the values, and what is added to them or stands before them, are."""
    if op.gives_more():
        return never
    return lambda zero: all(zero[p] for p in positions if p < len(zero))


@register("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(op: Op) -> Rule:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention

    Queries, keys and values are apart, or packed as [B, S, H, 3, D] or [B, S, H, 2, D]; keys may come by head.
    """
    count = op.attribute("num_heads")
    positions = [p for p in (0, 1, 2) if op.has(p)]

    def labels(flow: LabelFlow) -> None:
        parts = [heads_of(flow, p, count, {3: -1, 4: 1, 5: 2}.get(len(op.size(p)), -1)) for p in positions]
        size = op.output_size()
        if None in parts or not size:
            flow.freeze_inputs("MultiHeadAttention of unknown shapes")
            return
        found = [part for part in parts if part is not None]
        if op.has(3):
            found.append(_bias_by_head(flow, op, count))
        heads = tie_heads(flow, found, count)
        if op.has(6) or op.has(7):
            keep_heads(flow, found, _CACHE)
        tie_beside(flow, 5, -3, heads)
        flow.size_attribute("num_heads", heads.reshape(-1, 1))
        values, keys = found[len(positions) - 1], found[min(1, len(positions) - 1)]
        write_heads(flow, values, 1, 3, size[-1] // count)
        write_heads(flow, keys, 1, 4, 1, output=1)
        write_heads(flow, values, 1, 4, 1, output=2)

    query, size = op.size(0), op.output_size()
    keys = op.size(1) if op.has(1) else query
    length = keys[2] if len(keys) == 4 else keys[1] if keys else 0
    deep = query[-1] * (count if len(query) == 5 else 1) if query else 0
    return Rule(
        labels=labels,
        zero=_values_are_zero(op, (positions[-1], 3, 7)) if positions else never,
        parameters={3: "bias"},
        macs=query[1] * length * (deep + size[-1]) if query and size else 0,
    )


def _bias_by_head(flow: LabelFlow, op: Op, count: int) -> Labelled:
    """The bias of queries, keys and values, one after another, by head; zeroed with them."""
    total, size = op.size(3), op.size(0)
    own = flow.weight_axis(3, 0, Kind.AFFINE) if flow.is_weight(3) else np.full((total or (0,))[0], -1, np.int64)
    deep = size[-1] if len(size) == 3 else count * size[-1]
    pieces = (own[:deep], own[deep : 2 * deep], own[2 * deep :])
    if any(len(piece) % count or not len(piece) for piece in pieces):
        return Labelled.of(np.full((count, 1), -1, np.int64), False)
    return Labelled.of(np.concatenate([piece.reshape(count, -1) for piece in pieces], axis=1), True)


@register("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(op: Op) -> Rule:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention"""
    queries, keys = op.attribute("num_heads"), op.attribute("kv_num_heads")
    query = op.size(0)
    packed = not op.has(1)
    width = query[-1] // (queries + 2 * keys if packed else queries) if query else 0

    def labels(flow: LabelFlow) -> None:
        parts = _packed_groups(flow, queries, keys) if packed else _apart(flow, queries, keys)
        if parts is None:
            flow.freeze_inputs("GroupQueryAttention of unknown shapes")
            return
        heads = tie_heads(flow, parts, keys)
        if op.has(3) or op.has(4):
            keep_heads(flow, parts, _CACHE)
        each = np.repeat(heads, queries // keys)
        tie_beside(flow, 10, -3, each)
        tie_beside(flow, 11, -1, each)
        flow.size_attribute("num_heads", each.reshape(-1, 1))
        flow.size_attribute("kv_num_heads", heads.reshape(-1, 1))
        write_heads(flow, parts[2], queries // keys, 3, width)
        write_heads(flow, parts[1], 1, 4, 1, output=1)
        write_heads(flow, parts[2], 1, 4, 1, output=2)

    length = op.size(1)[1] if op.has(1) and op.size(1) else query[1] if query else 0
    return Rule(
        labels=labels,
        zero=_values_are_zero(op, (0 if packed else 2, 4)),
        macs=2 * queries * width * query[1] * length if query else 0,
    )


def _apart(flow: LabelFlow, queries: int, keys: int) -> list[Labelled] | None:
    found = [heads_of(flow, p, n) for p, n in ((0, queries), (1, keys), (2, keys))]
    return [part for part in found if part is not None] if None not in found and queries % keys == 0 else None


def _packed_groups(flow: LabelFlow, queries: int, keys: int) -> list[Labelled] | None:
    """Queries, keys and values that lie one after another on the last axis."""
    found = heads_of(flow, 0, queries + 2 * keys)
    if found is None or queries % keys:
        return None
    bounds = (0, queries, queries + keys, queries + 2 * keys)
    return [found.map(lambda array, a=a, b=b: array[a:b]) for a, b in pairwise(bounds)]  # type: ignore[misc]


@register("Attention", domain=MICROSOFT)
def attention_with_weights(op: Op) -> Rule:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention

    It projects by itself: one weight and one bias hold queries, keys and values one after another.
    """
    count, data, weight = op.attribute("num_heads"), op.size(0), op.size(1)
    sizes = list(op.attribute("qkv_hidden_sizes", ())) or ([weight[1] // 3] * 3 if weight else [])

    def labels(flow: LabelFlow) -> None:
        if not sizes or not flow.is_weight(1) or any(n % count for n in sizes) or sum(sizes) != weight[1]:
            flow.freeze_inputs("Attention of unknown shapes")
            return
        channels = flow.channels(0, -1)
        columns = flow.weight_axis(1, 0, Kind.CUT) if (channels.ids >= 0).any() else channels.ids[:0]
        if len(columns):
            flow.contract(channels, columns)
        rows = flow.weight_axis(1, 1, Kind.PRODUCED)
        if op.has(2):
            flow.tie(rows, flow.weight_axis(2, 0, Kind.PRODUCED), "the bias is computed")
        pieces = np.split(rows, np.cumsum(sizes)[:-1])
        parts = [Labelled.of(piece.reshape(count, -1), True) for piece in pieces]
        heads = tie_heads(flow, parts, count)
        flow.count_macs(columns, rows)
        if op.has(4):
            keep_heads(flow, parts, _CACHE)
        tie_beside(flow, 5, -3, heads)
        flow.size_attribute("num_heads", heads.reshape(-1, 1))
        if op.attribute("qkv_hidden_sizes"):
            for at, piece in enumerate(pieces):
                flow.size_attribute("qkv_hidden_sizes", piece, at)
        write_heads(flow, parts[2], 1, 3, sizes[2] // count)
        if op.gives_more():
            keep_heads(flow, parts, _CACHE)

    macs = data[1] * weight[0] * weight[1] + data[1] ** 2 * (sizes[0] + sizes[2]) if data and weight else 0
    return Rule(labels=labels, zero=_projected_to_zero(op), parameters={1: "weight", 2: "bias"}, macs=macs)


def _projected_to_zero(op: Op) -> ZeroRule:
    if op.gives_more() or op.has(4):
        return never
    return lambda zero: (zero[0] or zero[1]) and (len(zero) < 3 or zero[2])


@register("RotaryEmbedding", since_version=23)
@register("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html: turns pairs within each head, so zero stays zero."""
    size = op.size(0)
    given = op.attribute("num_heads", 0)
    tables = op.size(2 if op.node.domain == MICROSOFT else 1)
    width = 2 * tables[-1] if tables else 0

    def labels(flow: LabelFlow) -> None:
        by_axis = len(size) == 4
        count = size[1] if by_axis else given or (size[-1] // width if size and width else 0)
        part = heads_of(flow, 0, count, 1 if by_axis else -1)
        if part is None:
            flow.freeze_inputs("RotaryEmbedding of heads that are not known")
            return
        flow.tie(np.broadcast_to(part.ids[:, :1], part.ids.shape), part.ids, "RotaryEmbedding turns parts of a head")
        if given:
            flow.size_attribute("num_heads", part.ids)
        write_heads(flow, part.slab([1]) if by_axis else part, 1, len(size), size[-1] // count if not by_axis else 1)

    return Rule(labels=labels, zero=first)
