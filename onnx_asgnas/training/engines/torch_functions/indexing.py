"""Values by their places: gathered from them, and scattered to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, function

_KINDS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _places(op: Operator, position: int) -> Callable[[Tensor, int], Tensor]:
    """A function from an input of indices to indices that count from the start, given how many there are."""
    value = op.constant(position)
    if value is not None and (value.size == 0 or value.min() >= 0):
        return lambda index, _: index.long()

    def wrapped(index: Tensor, size: int) -> Tensor:
        index = index.long()
        return torch.where(index < 0, index + size, index)

    return wrapped


@function("Gather", of_host=True)
def gather(op: Operator) -> Compute:
    """Whole slices of an axis; an index of rank 0 takes the axis away."""
    axis, places = op.attribute("axis", 0), _places(op, 1)
    value = op.constant(1)
    if value is not None and value.ndim == 0:
        at = int(value)
        return lambda x, _: x.select(axis, at)

    def run(x: Tensor, index: Tensor) -> Tensor:
        index = places(index, x.shape[axis])
        if x.dim() == 2 and axis == 0 and x.is_floating_point():
            return F.embedding(index, x)
        taken = x.index_select(axis, index.reshape(-1))
        if index.dim() == 1:
            return taken
        at = axis % x.dim()
        return taken.reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


@function("GatherElements")
def gather_elements(op: Operator) -> Compute:
    """Single values along an axis."""
    axis, places = op.attribute("axis", 0), _places(op, 1)
    return lambda x, index: torch.gather(x, axis, places(index, x.shape[axis]))


@function("GatherND")
def gather_nd(op: Operator) -> Compute:
    """Slices by indices into several axes, within each batch."""
    batch = op.attribute("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        outer = x.shape[:batch]
        rows = math.prod(outer)
        inner = x.reshape(rows, *x.shape[batch:])
        within = index.reshape(rows, -1, index.shape[-1])
        images = torch.arange(rows, device=x.device).reshape(-1, 1).expand(-1, within.shape[1])
        places = (images, *within.long().unbind(-1))
        taken = inner[places]
        return taken.reshape(*index.shape[:-1], *x.shape[batch + index.shape[-1] :])

    return run


@function("ScatterElements")
def scatter_elements(op: Operator) -> Compute:
    """Single values put to places along an axis: in place of what is there, or combined with it."""
    axis, kind, places = op.attribute("axis", 0), op.attribute("reduction", "none"), _places(op, 1)

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        index = places(index, x.shape[axis])
        if kind == "none":
            return x.scatter(axis, index, updates)
        if kind == "add":
            return x.scatter_add(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, _KINDS[kind], include_self=True)

    return run


@function("ScatterND")
def scatter_nd(op: Operator) -> Compute:
    """Slices put to indices into the first axes: in place of what is there, or combined with it."""
    kind = op.attribute("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        depth = index.shape[-1]
        lead, rest = x.shape[:depth], x.shape[depth:]
        place = torch.zeros(index.shape[:-1], dtype=torch.int64, device=x.device)
        for size, part in zip(lead, index.long().unbind(-1), strict=True):
            place = place * size + torch.where(part < 0, part + size, part)
        rows, place = x.reshape(math.prod(lead), math.prod(rest)), place.reshape(-1)
        values = updates.reshape(place.numel(), math.prod(rest))
        if kind in ("none", "add"):
            return rows.index_put((place,), values, accumulate=kind == "add").reshape(x.shape)
        whole = place.reshape(-1, 1).expand_as(values)
        return rows.scatter_reduce(0, whole, values, _KINDS[kind], include_self=True).reshape(x.shape)

    return run


@function("OneHot", host=(1,))
def one_hot(op: Operator) -> Compute:
    """One value at the place that an index names, another one elsewhere."""
    axis, depth_of = op.attribute("axis", -1), op.integers(1)

    def run(index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = depth_of(depth)[0]
        at = axis % (index.dim() + 1)
        index = index.long() if not index.is_floating_point() else index.to(torch.int64)
        index = torch.where(index < 0, index + count, index).unsqueeze(at)
        shape = [count if place == at else 1 for place in range(index.dim())]
        return torch.where(index == torch.arange(count, device=index.device).reshape(shape), values[1], values[0])

    return run


@function("Compress")
def compress(op: Operator) -> Compute:
    """The slices of an axis for which a condition holds; of all values, flat, where there is no axis."""
    axis = op.attribute("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        kept = torch.nonzero(condition).reshape(-1)
        return x.reshape(-1).index_select(0, kept) if axis is None else x.index_select(axis, kept)

    return run


@function("ReverseSequence")
def reverse_sequence(op: Operator) -> Compute:
    """The beginning of every sequence of a batch turned round."""
    time = op.attribute("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(x.shape[time], device=x.device).reshape(-1, 1)
        ends = lengths.long().reshape(1, -1)
        index = torch.where(steps < ends, ends - 1 - steps, steps)
        index = index if time == 0 else index.t()
        return torch.gather(x, time, index.reshape(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))

    return run
