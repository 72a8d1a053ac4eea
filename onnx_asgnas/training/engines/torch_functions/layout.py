"""Operators that move values: other shapes and orders, parts, pads."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.dense import pad_list
from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, attribute_of, function


@function("Reshape", host=(1,), of_host=True)
def reshape(op: Operator) -> Compute:
    """Another shape: 0 keeps a length (unless allowzero), -1 is what is left over."""
    shape_of, literal = op.integers(1), bool(op.attribute("allowzero", 0))
    known = shape_of(None) if op.constant(1) is not None else None
    if known is not None and (literal or 0 not in known):
        return lambda x, _: x.reshape(known)

    def run(x: Tensor, given: Tensor) -> Tensor:
        shape = shape_of(given)
        if not literal:
            shape = [x.shape[at] if length == 0 else length for at, length in enumerate(shape)]
        return x.reshape(shape)

    return run


@function("Flatten")
def flatten(op: Operator) -> Compute:
    """Two axes: all those before one, and all from it on."""
    axis = op.attribute("axis", 1)

    def run(x: Tensor) -> Tensor:
        shape = x.shape
        at = axis if axis >= 0 else axis + x.dim()
        return x.reshape(shape[:at].numel(), shape[at:].numel())

    return run


@function("Transpose")
def transpose(op: Operator) -> Compute:
    """The axes in another order: turned round where none is given."""
    order = op.attribute("perm")
    if order is None:
        return lambda x: x.permute(*reversed(range(x.dim())))
    return lambda x: x.permute(order)


@function("Squeeze", host=(1,), of_host=True)
def squeeze(op: Operator) -> Compute:
    """Without these axes of length 1, or without all of them."""
    if not op.has(1):
        return lambda x, *_: x.squeeze()
    axes_of = op.integers(1)

    def run(x: Tensor, given: Tensor) -> Tensor:
        axes = {axis % x.dim() for axis in axes_of(given)}
        return x.reshape([length for at, length in enumerate(x.shape) if at not in axes])

    return run


@function("Unsqueeze", host=(1,), of_host=True)
def unsqueeze(op: Operator) -> Compute:
    """With axes of length 1 at these places of the result."""
    axes_of = op.integers(1)

    def run(x: Tensor, given: Tensor) -> Tensor:
        axes = axes_of(given)
        if len(axes) == 1:
            return x.unsqueeze(axes[0])
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@function("Concat", of_host=True)
def concat(op: Operator) -> Compute:
    """Several tensors behind one another along an axis."""
    axis = op.attribute("axis")
    return lambda *xs: torch.cat(xs, axis)


@function("Split", host=(1,))
def split(op: Operator) -> Compute:
    """Parts along an axis, of given lengths or as equal as can be."""
    axis, lengths_of, parts = op.attribute("axis", 0), op.integers(1), op.attribute("num_outputs")
    count = len(op.node.output)

    def run(x: Tensor, given: Tensor | None = None) -> Sequence[Tensor]:
        if op.has(1):
            return torch.split(x, lengths_of(given), axis)
        size = x.shape[axis]
        length = -(-size // (parts or count))
        return torch.split(x, [max(min(length, size - at * length), 0) for at in range(count)], axis)

    return run


@function("Slice", host=(1, 2, 3, 4), of_host=True)
def slice_(op: Operator) -> Compute:
    """From a start to before an end along some axes, in steps that may be negative."""
    starts_of, ends_of, axes_of, steps_of = (op.integers(at) for at in (1, 2, 3, 4))

    def run(x: Tensor, *given: Tensor | None) -> Tensor:
        padded = (*given, None, None)
        start_t, end_t, axes_t, steps_t = padded[0], padded[1], padded[2], padded[3]
        starts, ends = starts_of(start_t), ends_of(end_t)
        axes = axes_of(axes_t) or list(range(len(starts)))
        steps = steps_of(steps_t) or [1] * len(starts)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            places = range(*slice(start, end, step).indices(x.shape[axis]))
            if not places:
                x = x.narrow(axis, 0, 0)
            elif step == 1:
                x = x.narrow(axis, places.start, len(places))
            elif step > 0:
                x = _every(x, axis, places[0], places[-1] + 1, step)
            else:
                x = _every(x, axis, places[-1], places[0] + 1, -step).flip(axis)
        return x

    return run


def _every(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    index = [slice(None)] * x.dim()
    index[axis] = slice(start, end, step)
    return x[tuple(index)]


@function("Expand", host=(1,), of_host=True)
def expand(op: Operator) -> Compute:
    """Repeated along axes of length 1, to a shape that both broadcast to."""
    shape_of = op.integers(1)

    def run(x: Tensor, given: Tensor) -> Tensor:
        shape: torch.Size = torch.broadcast_shapes(x.shape, shape_of(given))  # type: ignore[no-untyped-call]
        return x.expand(shape)

    return run


@function("Tile", host=(1,), of_host=True)
def tile(op: Operator) -> Compute:
    """Repeated along every axis."""
    times_of = op.integers(1)
    return lambda x, given: x.repeat(times_of(given))


@function("Trilu", host=(1,))
def trilu(op: Operator) -> Compute:
    """What lies above or below a diagonal; zero elsewhere."""
    compute = torch.triu if op.attribute("upper", 1) else torch.tril
    above = op.integers(1)
    return lambda x, given=None: compute(x, (above(given) or [0])[0])


@function("DepthToSpace")
def depth_to_space(op: Operator) -> Compute:
    """Blocks of channels as blocks of pixels."""
    block, columns_first = op.attribute("blocksize"), op.attribute("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        if columns_first:
            return F.pixel_shuffle(x, block)
        n, c, h, w = x.shape
        split_up = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return split_up.reshape(n, c // block**2, h * block, w * block)

    return run


@function("SpaceToDepth", unless=lambda node: attribute_of(node, "mode", "DCR") != "DCR")
def space_to_depth(op: Operator) -> Compute:
    """Blocks of pixels as blocks of channels."""
    block = op.attribute("blocksize")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        split_up = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return split_up.reshape(n, c * block**2, h // block, w // block)

    return run


def _unknown_mode(node: onnx.NodeProto) -> bool:
    return attribute_of(node, "mode", "constant") not in ("constant", "reflect", "edge", "wrap")


@function("Pad", unless=_unknown_mode, host=(1, 3))
def pad(op: Operator) -> Compute:
    """More at both ends of axes, or less where a pad is negative."""
    mode, pads_of, axes_of = op.attribute("mode", "constant"), op.integers(1), op.integers(3)
    value = op.number(2) if op.has(2) else 0

    def run(x: Tensor, given: Tensor, fill: Tensor | None = None, axes_t: Tensor | None = None) -> Tensor:
        pads, axes = pads_of(given), axes_of(axes_t) or list(range(x.dim()))
        whole = [0] * (2 * x.dim())
        for at, axis in enumerate(axes):
            whole[axis % x.dim()], whole[axis % x.dim() + x.dim()] = pads[at], pads[at + len(axes)]
        if mode == "constant":
            number = value if value is not None or fill is None else fill.item()
            return F.pad(x, pad_list(whole), value=number)
        for axis in range(x.dim()):
            before, after = whole[axis], whole[axis + x.dim()]
            if before or after:
                places = _padded_places(mode, x.shape[axis], before, after)
                x = x.index_select(axis, places.to(x.device))
        return x

    return run


def _padded_places(mode: str, size: int, before: int, after: int) -> Tensor:
    """Which values stand where, along an axis that is padded with values of its own."""
    places = torch.arange(-before, size + after)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    places = places % period
    return torch.where(places < size, places, period - places)
