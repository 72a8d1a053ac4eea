"""Heads of attention: they leave whole, the query heads of one key-value head with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow

_REASON = "attention over heads that cannot leave"


def heads_of(flow: LabelFlow, position: int, count: int | None, axis: int = -1) -> Labelled | None:
    """The labels of a query, key or value by head, [heads, rest].

    `axis` is that of the heads, -1 where they lie one after another on the last axis. What varies along other axes is
    mixed. None where the shape is not known, or does not hold that many heads.
    """
    size = flow.size(position)
    if not size or not count or len(size) < -axis or axis >= len(size) or size[axis] % count:
        return None
    if flow.is_weight(position):
        own = flow.weight_axis(position, axis, Kind.CUT)
        return Labelled.of(own.reshape(count, -1), False)
    found = flow.read(position)
    place = axis % max(found.ids.ndim, 1)
    found = flow.mix(found, [a for a in found.long if a != place], f"{flow.node.op_type} mixes along another axis")
    if not found.any:
        return Labelled.of(np.full((count, size[axis] // count), -1, np.int64), False)
    return found.map(lambda array: np.broadcast_to(array.reshape(-1), (size[axis],)).reshape(count, -1))


def tie_heads(flow: LabelFlow, parts: Sequence[Labelled], count: int) -> Ids:
    """Tie all that belongs to one of `count` key-value heads; gives a label for each, -1 where it stays.

    The heads of one part lie one after another, as many of them for each key-value head.
    """
    whole = np.concatenate([part.ids.reshape(count, -1) for part in parts], axis=1)
    first: Ids = whole[:, :1]
    flow.tie(np.broadcast_to(first, whole.shape), whole, _REASON)
    flow.count_macs(first)
    return np.where((whole >= 0).all(axis=1), first[:, 0], -1)


def keep_heads(flow: LabelFlow, parts: Sequence[Labelled | None], reason: str) -> None:
    """Freeze all heads."""
    for part in parts:
        if part is not None:
            flow.freeze(part.ids, reason)


def tie_beside(flow: LabelFlow, position: int, axis: int, heads: Ids) -> None:
    """A mask, bias or table that may have an axis of heads: it is cut along it, and its other channels stay.

    `heads` has a label for each query head.
    """
    if position >= len(flow.node.input) or not flow.node.input[position]:
        return
    size, reason = flow.size(position), f"{flow.node.op_type} with a mask or bias of heads that cannot leave"
    if size is None:
        flow.freeze(heads, reason)
        return
    found = flow.read(position)
    has_heads = len(size) >= -axis and size[axis] == len(heads) > 1
    if flow.is_weight(position):
        if has_heads:
            flow.tie(heads, flow.weight_axis(position, axis, Kind.CUT), reason)
        return
    if not has_heads:
        flow.freeze(found.ids, f"{flow.node.op_type} is masked by them")
        return
    found = flow.mix(found, [a for a in found.long if a != found.ids.ndim + axis], reason)
    own = found.ids.reshape(-1) if found.any else np.full(len(heads), -1, np.int64)
    flow.tie(heads, own, reason)


def write_heads(flow: LabelFlow, values: Labelled, repeats: int, rank: int, head_size: int, output: int = 0) -> None:
    """Write the heads of a result, each as often as it has query heads: on the last of three axes, or on axis 1."""
    own = values if rank == 3 and values.ids.shape[1] == head_size else values.slab([1])
    spread = own.map(lambda array: np.repeat(array, repeats, axis=0))
    if rank == 3:
        wide = (len(spread.ids), head_size)
        flow.write(spread.map(lambda array: np.broadcast_to(array, wide).reshape(1, 1, -1)), output)
    else:
        flow.write(spread.map(lambda array: array.reshape(1, -1, 1, 1)), output)
