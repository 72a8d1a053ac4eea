"""Operators that move values: no arithmetic, but places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Dim, Site, Value


@rewrite("Transpose")
def rewrite_transpose(site: Site) -> Value:
    """Transpose with its order written out, which the gradient needs."""
    x = site.input()
    return x.transpose(*site.attribute("perm", range(x.rank)[::-1]))


@rewrite("Split")
def rewrite_split(site: Site) -> list[Value | None]:
    """Split as Slices: the gradient of one with an output that nobody reads has a wrong shape."""
    x, count, axis = site.input(), len(site.node.output), site.attribute("axis", 0)
    if site.has(1):
        parts = site.fixed(1, "split").tolist()
    else:
        size = x.fixed_size(axis, "split into equal parts")
        each = -(-size // count)
        parts = [min(each, size - at * each) for at in range(count)]
    ends = np.cumsum(parts).tolist()
    return [
        x.slice(axis, end - size, end) if site.wants(at) else None
        for at, (size, end) in enumerate(zip(parts, ends, strict=True))
    ]


@rewrite("Gather")
def rewrite_gather(site: Site) -> Value:
    """Gather as it is, or of one place or of places in a row as a Slice, whose gradient is much faster."""
    x, index = site.input(0), site.input(1)
    places = index.constant
    if places is None or places.ndim > 1 or not places.size or not x.has_rank:
        return site.kept("Gather", x, index, axis=site.attribute("axis", 0))
    axis = site.axis(0, x.rank)
    length = x.shape[axis]
    if length is None and (places < 0).any() and (places.size > 1 or places.item() != -1):
        return site.kept("Gather", x, index, axis=axis)
    first, count = int(places.flat[0]), places.size
    first = first if length is None or first >= 0 else first + length
    if count > 1 and not np.array_equal(places.ravel() % (length or np.iinfo(np.int64).max), first + np.arange(count)):
        return site.kept("Gather", x, index, axis=axis)
    end = first + count if first != -1 else np.iinfo(np.int64).max
    part = x.slice(axis, first, int(end))
    return part if places.ndim else part.squeeze(axis)


@rewrite("Slice")
def rewrite_slice(site: Site) -> Value:
    """Slice backward as a Slice forward and a reversal: the gradient of negative steps fails."""
    x = site.input()
    given = site.input(4).constant
    if given is None or (given > 0).all():
        return site.kept("Slice", *site.inputs())
    starts, ends = (site.fixed(at, "place").tolist() for at in (1, 2))
    axes = site.fixed_axes(3, x.rank) or list(range(len(starts)))
    for axis, start, end, step in zip(axes, starts, ends, given.tolist(), strict=True):
        length = x.shape[axis]
        if length is not None:
            places = np.arange(length)[slice(start, end if end >= -length else None, step)]
            x = x.gather(places, axis) if step < 0 else x.slice(axis, start, end, step)
        elif step > 0:
            x = x.slice(axis, start, end, step)
        elif (start, step) == (-1, -1) and end < -(2**30):
            x = reversed_along(x, axis)
        else:
            raise site.refusal(f"it goes backward along axis {axis}, the size of which is open")
    return x


@rewrite("DepthToSpace")
def rewrite_depth_to_space(site: Site) -> Value:
    """Channels into blocks of pixels."""
    x, block = site.input(), site.attribute("blocksize")
    batch, channels, height, width = x.dims()
    depth = channels // block**2 if isinstance(channels, int) else -1
    if site.attribute("mode", "DCR") == "DCR":
        split = x.reshape(batch, block, block, depth, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        split = x.reshape(batch, depth, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return split.reshape(batch, depth, _times(height, block), _times(width, block))


@rewrite("SpaceToDepth")
def rewrite_space_to_depth(site: Site) -> Value:
    """Blocks of pixels into channels."""
    x, block = site.input(), site.attribute("blocksize")
    batch, channels, height, width = x.dims()
    rows, columns = _over(height, block), _over(width, block)
    split = x.reshape(batch, channels, rows, block, columns, block)
    order = (0, 3, 5, 1, 2, 4) if site.attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return split.transpose(*order).reshape(batch, _times(channels, block**2), rows, columns)


def _times(dim: Dim, factor: int) -> Dim:
    return dim * factor


def _over(dim: Dim, factor: int) -> Dim:
    return dim // factor if isinstance(dim, int) else dim / factor


@rewrite("Pad")
def rewrite_pad(site: Site) -> Value:
    """Pad with an amount for every axis; reflected and repeated edges are gathered, axis by axis."""
    x = site.input()
    rank = x.rank
    axes = site.fixed_axes(3, rank) or list(range(rank))
    pads = np.zeros((2, rank), np.int64)
    mode = site.attribute("mode", "constant")
    pads[:, axes] = np.reshape(site.fixed(1, "padding"), (2, -1))
    if mode == "constant":
        return site.op("Pad", x, pads.ravel(), site.input(2) if site.has(2) else None)
    for axis in np.flatnonzero(pads.any(axis=0)).tolist():
        x = _mirrored(x, axis, pads[:, axis].tolist(), mode)
    return x


def _mirrored(x: Value, axis: int, pads: list[int], mode: str) -> Value:
    """Padded along one axis with values of its own."""
    before, after = max(pads[0], 0), max(pads[1], 0)
    if min(pads) < 0:
        end = pads[1] if pads[1] < 0 else int(np.iinfo(np.int64).max)
        x = x.slice(axis, max(-pads[0], 0), end)
    length = x.dim(axis)
    if isinstance(length, int):
        places: Any = np.pad(np.arange(length), (before, after), mode=cast(Any, mode))
        return x.gather(places, axis)
    site = x.site
    total = length + site.ints(before + after)
    places = site.range(total) - site.ints(before)
    last = length - site.ints(1)
    if mode == "edge":
        places = site.op("Min", site.op("Max", places, site.ints(0)), last)
    elif mode == "wrap":
        places = site.op("Mod", places, length)
    else:
        period = last * site.ints(2)
        places = site.op("Mod", places, period)
        places = site.op("Min", places, period - places)
    return x.gather(places, axis)


@rewrite("Trilu")
def rewrite_triangle(site: Site) -> Value:
    """The part of each matrix above (or below) a diagonal: a mask that is made of ones."""
    x = site.input()
    ones = site.filled(1.0, x.dims(-2), x)
    mask = site.op("Trilu", ones, site.input(1) if site.has(1) else None, upper=site.attribute("upper", 1))
    return site.where(mask > 0.5, x, 0.0)


@rewrite("OneHot")
def rewrite_one_hot(site: Site) -> Value:
    """The off value, and where the index says so the on value."""
    index, depth, values = site.inputs()
    zero_one = site.constant(np.array([0, 1], values.dtype))
    hot = site.op("OneHot", index, depth, zero_one, axis=site.attribute("axis", -1))
    off, on = values.split(0, [1, 1])
    return off + hot * (on - off)


@rewrite("Where")
def rewrite_where(site: Site) -> Value:
    """Where of operands of one shape: the gradient forgets that one was broadcast."""
    condition, *branches = site.inputs()
    if not all(x.has_rank for x in (condition, *branches)):
        return site.kept("Where", condition, *branches)
    shape = broadcast([condition, *branches])
    sizes = [dim if isinstance(dim, int) else None for dim in shape]
    wide = [x.expand(*shape) if x.name in site.graph.reached and x.shape != sizes else x for x in branches]
    return site.kept("Where", condition, *wide)


def broadcast(values: Sequence[Value]) -> list[Dim]:
    """The lengths that these have together."""
    rank = max(x.rank for x in values)
    dims: list[Dim] = []
    for axis in range(-rank, 0):
        there = [x for x in values if x.rank >= -axis]
        longest = next((x for x in there if x.shape[axis] != 1), there[0])
        dims.append(longest.dim(axis))
    return dims


@rewrite("Compress")
def rewrite_compress(site: Site) -> Value:
    """The places where the condition holds, gathered."""
    x, condition = site.input(0), site.input(1)
    places = site.op("NonZero", condition).squeeze(0)
    if site.attribute("axis") is None:
        return x.reshape(-1).gather(places, 0)
    return x.gather(places, site.axis(0, x.rank))


@rewrite("ReverseSequence")
def rewrite_reverse_sequence(site: Site) -> Value:
    """The first entries of each sequence in reverse order: gathered by index."""
    x, lengths = site.input(0), site.input(1)
    time, batch = site.attribute("time_axis", 0), site.attribute("batch_axis", 1)
    steps = x.dim(time)
    places = site.range(steps)
    shape = [1] * x.rank
    shape[time] = -1
    places = places.reshape(*shape)
    shape[time], shape[batch] = 1, -1
    lengths = lengths.reshape(*shape)
    back = site.where(places < lengths, lengths - places - site.ints(1), places)
    return site.op("GatherElements", x, back.expand(*x.dims()), axis=time)


@rewrite("ScatterElements", "ScatterND")
def rewrite_scatter(site: Site) -> Value:
    """With reduction "add" the updates are scattered into zeros, and added.

    With "max" and "min" the gradient goes to what equals the result, in equal shares.
    """
    data, index, updates = site.inputs()
    kind, by_place = site.attribute("reduction", "none"), site.node.op_type == "ScatterND"
    given: dict[str, Any] = {} if by_place else {"axis": site.axis(0, data.rank)}

    def added(to: Value, values: Value) -> Value:
        zeros = site.filled(0.0, to.dims(), to)
        return to + site.kept(site.node.op_type, zeros, index, values, reduction="add", **given)

    if kind == "add":
        return added(data, updates)
    if kind == "mul":
        raise site.refusal("a product of updates has no gradient where they are zero")
    found = site.op(site.node.op_type, data.detach(), index, updates.detach(), reduction=kind, **given)
    there = site.op("GatherND", found, index) if by_place else site.op("GatherElements", found, index, **given)
    hits = data.detach().equals(found), updates.detach().equals(there)
    count = added(hits[0].cast(data.dtype), hits[1].cast(data.dtype))
    return added(site.where(hits[0], data, 0.0), site.where(hits[1], updates, 0.0)) / count


@rewrite("TensorScatter")
def rewrite_tensor_scatter(site: Site) -> Value:
    """Updates written into a cache at a place of each sequence: a ScatterElements."""
    cache, updates = site.input(0), site.input(1)
    axis = site.axis(-2, cache.rank)
    places: Value = site.range(updates.dim(axis)).reshape(*[-1 if at == axis else 1 for at in range(cache.rank)])
    if site.has(2):
        places = places + site.input(2).reshape(-1, *[1] * (cache.rank - 1))
    if site.attribute("mode", "linear") == "circular":
        places = site.op("Mod", places, site.lengths([cache.dim(axis)]))
    return site.op("ScatterElements", cache, places.expand(*updates.dims()), updates, axis=axis)


def reversed_along(x: Value, axis: int, length: Dim | None = None) -> Value:
    """The entries of an axis from the last to the first; `length` is that of the axis where x does not tell it."""
    length = x.dim(axis) if length is None else length
    if isinstance(length, int):
        back: NDArray[np.int64] | Value = np.arange(length)[::-1].copy()
    else:
        back = length - x.site.ints(1) - x.site.range(length)
    return x.gather(back, axis)
