"""Lengths and element types of the operators that move elements about, and of those that make shapes.

They are rules as in `shape_rules`, and read the values of what holds their sizes.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import onnx

from onnx_asgnas.graph.facts import elements
from onnx_asgnas.graph.shape_rules import Call, Outputs, broadcast, rule


@rule("Expand")
def _expand(call: Call) -> Outputs | None:
    target = call.inputs[1].value
    shape = None if target is None else broadcast([call.shape(), tuple(int(v) for v in target)])
    return None if shape is None else [(call.kind, shape)]


@rule("Flatten")
def _flatten(call: Call) -> Outputs | None:
    x = call.shape()
    axis = call.attributes.get("axis", 1)
    axis += len(x) if axis < 0 else 0
    return [(call.kind, (elements(x[:axis]), elements(x[axis:])))] if 0 <= axis <= len(x) else None


@rule("Transpose")
def _transpose(call: Call) -> Outputs | None:
    x = call.shape()
    order = call.attributes.get("perm", range(len(x))[::-1])
    return [(call.kind, tuple(x[axis] for axis in order))] if sorted(order) == list(range(len(x))) else None


@rule("Reshape")
def _reshape(call: Call) -> Outputs | None:
    x, target = call.shape(), call.numbers("shape", 1)
    if target is None or target.count(-1) > 1 or min(target, default=0) < -1:
        return None
    if not call.attributes.get("allowzero"):
        if any(length == 0 and axis >= len(x) for axis, length in enumerate(target)):
            return None
        target = [length or x[axis] for axis, length in enumerate(target)]
    known = elements(tuple(length for length in target if length != -1))
    if -1 in target:
        if not known or elements(x) % known:
            return None
        target[target.index(-1)] = elements(x) // known
    return [(call.kind, tuple(target))] if elements(tuple(target)) == elements(x) else None


@rule("Concat")
def _concat(call: Call) -> Outputs | None:
    shapes = [call.shape(at) for at in range(len(call.inputs))]
    rank = len(shapes[0])
    axis = call.attributes.get("axis")
    if axis is None or not -rank <= axis < rank or any(len(s) != rank for s in shapes):
        return None
    axis %= rank
    beside = {s[:axis] + s[axis + 1 :] for s in shapes}
    if len(beside) > 1:
        return None
    return [(call.kind, (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :]))]


@rule("Slice")
def _slice(call: Call) -> Outputs | None:
    cuts = slices(call)
    if cuts is None:
        return None
    lengths = (len(range(*cut.indices(length))) for cut, length in zip(cuts, call.shape(), strict=True))
    return [(call.kind, tuple(lengths))]


def slices(call: Call) -> tuple[slice, ...] | None:
    """The cut of every axis that a Slice makes; None where it is not known."""
    starts, ends = call.numbers("starts", 1), call.numbers("ends", 2)
    if starts is None or ends is None or not (call.knows("axes", 3) and call.knows("steps", 4)):
        return None
    rank = len(call.shape())
    axes = call.numbers("axes", 3)
    axes = list(range(len(starts))) if axes is None else axes
    steps = call.numbers("steps", 4)
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        return None
    cuts = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -rank <= axis < rank:
            return None
        cuts[axis] = slice(start, end, step)
    return tuple(cuts)


@rule("Gather")
def _gather(call: Call) -> Outputs | None:
    x, indices = call.shape(0), call.shape(1)
    axis = call.attributes.get("axis", 0)
    if not -len(x) <= axis < len(x):
        return None
    axis %= len(x)
    return [(call.kind, x[:axis] + indices + x[axis + 1 :])]


@rule("Unsqueeze")
def _unsqueeze(call: Call) -> Outputs | None:
    x, axes = list(call.shape()), call.numbers("axes", 1)
    if axes is None:
        return None
    rank = len(x) + len(axes)
    places = sorted({axis % rank for axis in axes if -rank <= axis < rank})
    if len(places) != len(axes):
        return None
    for place in places:
        x.insert(place, 1)
    return [(call.kind, tuple(x))]


@rule("Squeeze")
def _squeeze(call: Call) -> Outputs | None:
    x = call.shape()
    if not call.knows("axes", 1):
        return None
    axes = call.numbers("axes", 1)
    if axes is None:
        return [(call.kind, tuple(length for length in x if length != 1))]
    if any(not -len(x) <= axis < len(x) or x[axis] != 1 for axis in axes):
        return None
    gone = {axis % len(x) for axis in axes}
    return [(call.kind, tuple(length for axis, length in enumerate(x) if axis not in gone))]


@rule("Cast")
def _cast(call: Call) -> Outputs | None:
    to = call.attributes.get("to")
    return [(to, call.shape())] if isinstance(to, int) else None


@rule("CastLike")
def _cast_like(call: Call) -> Outputs | None:
    return [(call.inputs[1].kind, call.shape())]


@rule("Split")
def _split(call: Call) -> Outputs | None:
    x = call.shape()
    axis = call.attributes.get("axis", 0)
    if not -len(x) <= axis < len(x) or not call.knows("split", 1):
        return None
    axis %= len(x)
    parts = call.numbers("split", 1)
    if parts is None:
        if x[axis] % call.outputs or call.attributes.get("num_outputs", call.outputs) != call.outputs:
            return None
        parts = [x[axis] // call.outputs] * call.outputs
    if sum(parts) != x[axis] or len(parts) != call.outputs:
        return None
    return [(call.kind, (*x[:axis], part, *x[axis + 1 :])) for part in parts]


@rule("Pad")
def _pad(call: Call) -> Outputs | None:
    x, pads = call.shape(), call.numbers("pads", 1)
    if pads is None or len(pads) != 2 * len(x) or call.has(3):
        return None
    lengths = tuple(pads[i] + n + pads[len(x) + i] for i, n in enumerate(x))
    return [(call.kind, lengths)] if min(lengths, default=0) >= 0 else None


@rule("Tile")
def _tile(call: Call) -> Outputs | None:
    x, repeats = call.shape(), call.inputs[1].value
    if repeats is None or repeats.shape != (len(x),) or (repeats < 0).any():  # type: ignore[operator]
        return None
    return [(call.kind, tuple(n * int(r) for n, r in zip(x, repeats, strict=True)))]


@rule("ConstantOfShape")
def _constant_of_shape(call: Call) -> Outputs | None:
    lengths, fill = call.inputs[0].value, call.attributes.get("value")
    if lengths is None or lengths.ndim != 1 or (lengths < 0).any():  # type: ignore[operator]
        return None
    kind = onnx.TensorProto.FLOAT if fill is None else fill.data_type
    return [(kind, tuple(int(n) for n in lengths))]


@rule("Range")
def _range(call: Call) -> Outputs | None:
    values = [fact.value for fact in call.inputs]
    if len(values) != 3 or any(v is None or v.dtype.kind != "i" or v.size != 1 for v in values):
        return None
    start, limit, delta = (int(np.asarray(v).reshape(-1)[0]) for v in values)
    return [(call.kind, (max(ceil((limit - start) / delta), 0),))] if delta else None


@rule("Shape")
def _shape(call: Call) -> Outputs | None:
    return [(onnx.TensorProto.INT64, (len(call.shape()[part_of_shape(call)]),))]


def part_of_shape(call: Call) -> slice:
    """Which lengths a Shape gives: from opset 15 on it has a start and an end."""
    return slice(call.attributes.get("start", 0), call.attributes.get("end"))


@rule("Size")
def _size(call: Call) -> Outputs | None:
    return [(onnx.TensorProto.INT64, ())]
