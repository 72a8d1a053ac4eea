"""Operators that move data about and change no value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.moving import Move, moves, normalised, part_of, remapped, views
from onnx_asgnas.operators.registry import Joint, Op, Rule, first, never, register
from onnx_asgnas.operators.reshaping import reshape_labels
from onnx_asgnas.operators.slots import Counts


def _mover(move: Move, **facts: Any) -> Rule:
    return Rule(labels=moves(move), view=views(move), zero=first, **facts)


@register("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def reshape(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Reshape.html and its siblings"""

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        source, target = flow.size(0), op.graph.sizes(op.node.output[0])[1]
        if source is None or target is None:
            flow.freeze(found.ids, f"{op.node.op_type} of unknown shapes")
            return Labelled.none(0)
        again = op.graph.size(op.node.input[0]), op.graph.size(op.node.output[0])
        other = None if again == (source, target) or None in again else again
        result = reshape_labels(flow, found, source, target, other)  # type: ignore[arg-type]
        if op.node.op_type != "Reshape":
            return result
        given = op.attribute("shape")
        for axis in result.long:
            if not op.has(1):
                if given[axis] > 0:
                    flow.size_attribute("shape", result.along(axis), at=axis)
            else:
                result = _length(flow, op, result, axis, kept=0)
        return result

    return _mover(move)


def _length(flow: LabelFlow, op: Op, found: Labelled, axis: int, kept: int) -> Labelled:
    """Note that an entry of a target shape follows a labelled axis; freeze where it cannot.

    An entry up to `kept` follows by itself: 0 and -1 of a Reshape, 1 of an Expand; so does a computed length.
    """
    if axis not in found.long or follows(flow, 1, axis, found.along(axis)):
        return found
    entry = flow.entry(1, axis)
    if entry is not None and (entry <= kept or flow.size_slot(1, axis, found.along(axis))):
        return found
    flow.freeze(found.ids, f"the target of this {op.node.op_type} is computed")
    return Labelled.none(found.ids.ndim)


def follows(flow: LabelFlow, position: int, entry: int, labels: Ids) -> bool:
    """Is this entry of a computed shape the length of an axis with the same labels."""
    lengths = flow.book.lengths.get(flow.node.input[position])
    found = lengths[entry] if lengths is not None and entry < len(lengths) else None
    return found is not None and found.shape == labels.shape and bool((found == labels).all())


@register("Transpose")
def transpose(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Transpose.html"""

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        order = op.attribute("perm", list(range(found.ids.ndim))[::-1])
        return found.map(lambda array: array.transpose(order))

    return _mover(move)


@register("Expand")
def expand(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Expand.html: what is repeated has the labels of what it repeats."""

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        target, source = op.output_size(), op.size(0)
        lead = len(target) - found.ids.ndim
        if not target or lead < 0:
            flow.freeze(found.ids, "Expand to an unknown shape")
            return Labelled.none(0)
        result = found.map(lambda array: array.reshape((1,) * lead + array.shape))
        for axis in result.long:
            if source[axis - lead] == target[axis]:
                result = _length(flow, op, result, axis, kept=1)
        return result

    return _mover(move)


@register("Tile", since_version=6)
def tile(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Tile.html"""

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        repeats = op.constant(1)
        before, after = op.size(0), op.output_size()
        for axis in found.long:
            times = int(repeats[axis]) if repeats is not None else after[axis] // before[axis] if after else 0
            if repeats is None and times != 1:
                flow.freeze(found.ids, "the repeats of this Tile are computed")
                return Labelled.none(found.ids.ndim)
            found = found.map(lambda array, a=axis, n=times: np.concatenate([array] * n, axis=a))  # type: ignore[misc]
        return found

    return _mover(move)


@register("Slice")
def slice_(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Slice.html"""
    listed = not op.has(1)
    starts, ends = (
        (op.attribute("starts", ()), op.attribute("ends", ())) if listed else (op.constant(1), op.constant(2))
    )
    steps = op.constant(4) if op.has(4) else None

    def axes(rank: int) -> list[int] | None:
        given: Any = op.attribute("axes") if listed else op.constant(3) if op.has(3) else None
        if given is None and not listed and op.has(3):
            return None
        if given is None:
            count = len(starts) if starts is not None else (op.size(1) or (rank,))[0]
            given = range(count)
        return normalised(given, rank)

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        where = axes(found.ids.ndim)
        if where is None:
            flow.freeze(found.ids, "the axes of this Slice are computed")
            return Labelled.none(found.ids.ndim)
        for at, axis in enumerate(where):
            if axis not in found.long:
                continue
            if flow.is_open(0, axis):
                flow.freeze(found.ids, "Slice of an axis of open length")
                return Labelled.none(found.ids.ndim)
            if starts is None or ends is None or (op.has(4) and (steps is None or steps[at] != 1)):
                flow.freeze(found.ids, "Slice with computed bounds or a step")
                return Labelled.none(found.ids.ndim)
            labels = found.along(axis)
            start, stop = (
                _bound(flow, op, labels, listed, which, at, int(v[at])) for which, v in ((0, starts), (1, ends))
            )
            found = part_of(flow, found, axis, start, max(start, stop))
        return found

    return _mover(move)


def _bound(flow: LabelFlow, op: Op, labels: Ids, listed: bool, which: int, at: int, value: int) -> int:
    """The place that a start or end of a Slice means; it follows the labels before it, or behind it if negative."""
    length = len(labels)
    place = min(max(value + length if value < 0 else value, 0), length)
    if -length <= value < 0:
        counted, counts = labels[place:], Counts.FROM_END
    elif 0 < value < 2**31 - 1:
        counted, counts = labels[:place], Counts.LENGTH
    else:
        return place
    if listed:
        flow.size_attribute(("starts", "ends")[which], counted, at, counts)
    else:
        flow.size_slot(1 + which, at, counted, counts)
    return place


@register("Split", since_version=2)
def split(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Split.html: equal parts become explicit ones when channels leave."""
    count = len(op.node.output)

    def parts(flow: LabelFlow, found: Labelled, axis: int) -> list[Labelled] | None:
        sizes: Any = op.constant(1) if op.has(1) else op.attribute("split")
        if sizes is None and op.has(1):
            flow.freeze(found.ids, "the parts of this Split are computed")
            return None
        labels = found.along(axis)
        given = sizes is not None
        if sizes is None:
            whole = -(-len(labels) // op.attribute("num_outputs", count))
            sizes = [min(whole, len(labels) - start) for start in range(0, len(labels), whole)]
            flow.size_attribute("split", labels, None, Counts.EQUAL_PARTS)
        ends = np.cumsum(sizes).tolist()
        for at, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
            if given and op.has(1):
                flow.size_slot(1, at, labels[start:stop])
            elif given:
                flow.size_attribute("split", labels[start:stop], at)
        return [part_of(flow, found, axis, a, b) for a, b in zip([0, *ends], ends, strict=False)]

    def cut(flow: LabelFlow, found: Labelled) -> list[Labelled] | None:
        axis = op.attribute("axis", 0) % found.ids.ndim
        if axis in found.long and flow.is_open(0, axis):
            flow.freeze(found.ids, "Split of an axis of open length")
            return None
        return parts(flow, found, axis) if axis in found.long else [found] * count

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        for at, part in enumerate((found.any and cut(flow, found)) or ()):
            flow.write(part, at)

    def view(flow: LabelFlow) -> Sequence[Ids] | None:
        return None  # a view is asked for by its tensor, a Split has several

    return Rule(labels=labels, view=view, zero=first)


@register("Gather")
def gather(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Gather.html: of a table of weights, or of data by constant indices."""
    table = op.is_weight(0) and op.is_activation(1)

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        axis, size = op.attribute("axis", 0) % found.ids.ndim, flow.size(1)
        if size is None:
            flow.freeze(found.ids, "Gather by indices of unknown rank")
            return Labelled.none(0)
        if axis not in found.long:
            shape = found.ids.shape
            return found.map(lambda array: array.reshape(shape[:axis] + (1,) * len(size) + shape[axis + 1 :]))
        indices = op.constant(1)
        if indices is None or indices.ndim > 1 or flow.is_open(0, axis) or not remapped(flow, 1, found.along(axis)):
            flow.freeze(found.ids, "Gather by computed indices, or by a table of them")
            return Labelled.none(found.ids.ndim + len(size) - 1)
        if indices.size == 1 and len(found.long) == 1:
            flow.freeze(found.along(axis)[indices.reshape(-1)], "the only channel of its tensor")
        return found.map(lambda array: array.take(indices, axis))

    def labels(flow: LabelFlow) -> None:
        if not table:
            moves(move)(flow)
            return
        rank, dims = flow.rank(1), op.size(0)
        axis = op.attribute("axis", 0) % max(len(dims), 1)
        made = [other for other in range(len(dims)) if other != axis and dims[other] > 1]
        if rank is not None and made:
            columns = flow.weight_axis(0, made[0], Kind.PRODUCED)
            place = made[0] if made[0] < axis else made[0] + rank - 1
            flow.write_channels(columns, True, len(dims) + rank - 1, place)

    return Rule(labels=labels, view=views(move), zero=first, parameters={0: "embedding"} if table else {})


@register("Concat", since_version=4)
def concat(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Concat.html"""
    positions = tuple(range(len(op.node.input)))
    activations = tuple(i for i in positions if op.is_activation(i))
    rank = len(op.size(0))
    axis = op.attribute("axis") % rank if rank else 0
    several = len({op.node.input[i] for i in activations}) > 1
    joint = Joint(operands=activations, axis=axis) if rank and several else None

    def labels(flow: LabelFlow) -> None:
        if any(flow.size(p) is None for p in positions):
            flow.freeze_inputs("the shape of an operand is unknown")
            return
        parts = [flow.read(p) for p in positions]
        across = sorted({a for part in parts for a in part.long if a != axis})
        if any(axis in part.long for part in parts) or not across:
            sourced = flow.book.with_sources and joint is not None and not across
            flow.write(_joined(flow, parts, positions, axis, sourced=sourced))
        else:
            flow.write(_side_by_side(flow, parts, positions, across))

    return Rule(labels=labels, view=lambda flow: _viewed_concat(flow, op, axis), zero=all, joint=joint)


def _joined(
    flow: LabelFlow, parts: list[Labelled], positions: tuple[int, ...], axis: int, *, sourced: bool
) -> Labelled:
    """Operands one after another along the axis on which they are labelled."""
    sizes = [flow.size(p) or () for p in positions]
    none = Labelled.none(len(sizes[0]))
    if not sourced and not any(part.any for part in parts):
        return none
    is_open = [(flow.book.graph.shape(flow.node.input[p]) or (None,) * (axis + 1))[axis] is None for p in positions]
    if any(is_open):
        for part in parts:
            flow.freeze(part.ids, "Concat with an operand of open length")
        return none
    shape = [1 if a == axis else max(part.ids.shape[a] for part in parts) for a in range(len(sizes[0]))]
    whole = []
    for part, position, size in zip(parts, positions, sizes, strict=True):
        shape[axis] = size[axis]
        spread = part
        if list(part.ids.shape) != shape:
            spread = part.map(lambda array, s=tuple(shape): np.broadcast_to(array, s))  # type: ignore[misc]
        whole.append(_sourced(flow, spread, position, axis) if sourced else spread)
    return Labelled(*(np.concatenate([getattr(p, name) for p in whole], axis=axis) for name in ("ids", "zero")))


def _sourced(flow: LabelFlow, part: Labelled, position: int, axis: int) -> Labelled:
    """Channels without a label get one of their own, which only a removed structure takes along."""
    if (part.ids >= 0).all():
        return part
    source = flow.own_axis(position, axis, part.ids.shape[axis], Kind.SOURCE).reshape(part.ids.shape)
    return Labelled(np.where(part.ids >= 0, part.ids, source), part.zero | (part.ids < 0))


def _side_by_side(flow: LabelFlow, parts: list[Labelled], positions: tuple[int, ...], across: list[int]) -> Labelled:
    """Operands that vary along other axes than the joined one: tied there, and a weight is cut like the rest."""
    reason = "Concat with an operand whose channels cannot leave"
    found = []
    for part, position in zip(parts, positions, strict=True):
        size = flow.size(position) or ()
        if not part.any and flow.is_weight(position) and len(across) == 1:
            own = flow.weight_axis(position, across[0] - len(size), Kind.CUT)
            part = Labelled.of(own.reshape([-1 if a == across[0] else 1 for a in range(len(size))]), False)
        found.append(part)
    shape = np.broadcast_shapes(*(part.ids.shape for part in found))
    spread = [part.map(lambda array: np.broadcast_to(array, shape)) for part in found]
    for part in spread[1:]:
        flow.tie(spread[0].ids, part.ids, reason)
    if any((part.ids < 0).any() for part in spread):
        flow.book.conflict |= len(across) > 1
        return Labelled.none(len(shape))
    return Labelled(spread[0].ids, np.logical_and.reduce([part.zero for part in spread]))


def _viewed_concat(flow: LabelFlow, op: Op, axis: int) -> Sequence[Ids] | None:
    """A Concat of weights: the joined axis has the labels of all, on the others they are tied."""
    found = [flow.factors(p) for p in range(len(op.node.input))]
    if any(factors is None for factors in found):
        return None
    rank = len(op.size(0))
    result = []
    for a in range(rank):
        lines = []
        for position, factors in enumerate(found):
            mine = [ids for ids in factors or () if ids.shape[a] > 1 and ids.size == ids.shape[a]]
            length = op.size(position)[a]
            lines.append(mine[0].reshape(-1) if mine else np.full(length, -1, np.int64))
        shape = [1] * rank
        shape[a] = -1
        if a == axis:
            result.append(np.concatenate(lines).reshape(shape))
        else:
            for line in lines[1:]:
                flow.tie(lines[0], line, "a Concat of weights that cannot be cut alike")
                if not np.array_equal(lines[0], line):
                    flow.book.alike.append((lines[0], line))
            result.append(lines[0].reshape(shape))
    return [ids for ids in result if ids.size > 1 and (ids >= 0).any()]


@register("Pad", since_version=2)
def pad(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Pad.html: zero stays zero where the padding is."""
    fill = 0.0
    if op.has(2):
        name = op.node.input[2]
        fill = float(op.graph.array(name).reshape(-1)[0]) if name in op.graph.initializers else 1.0
    fill = op.attribute("value", fill)
    constant = op.attribute("mode", b"constant") == b"constant"
    keeps = not constant or fill == 0

    def amounts(rank: int) -> dict[int, tuple[int, int]] | None:
        given: Any = op.constant(1) if op.has(1) else op.attribute("pads", ())
        axes: Any = op.constant(3) if op.has(3) else range(rank)
        if given is None or axes is None:
            return None
        count = len(axes)
        return {int(a) % rank: (int(given[i]), int(given[i + count])) for i, a in enumerate(axes)}

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        known = amounts(found.ids.ndim)
        for axis in found.long:
            before, after = (-1, -1) if known is None else known.get(axis, (0, 0))
            if (before, after) == (0, 0):
                continue
            if before < 0 or after < 0 or not constant or flow.is_open(0, axis):
                flow.freeze(found.ids, "Pad along the channels")
                return Labelled.none(found.ids.ndim)
            widths = [(before, after) if a == axis else (0, 0) for a in range(found.ids.ndim)]
            found = Labelled(
                np.pad(found.ids, widths, constant_values=-1), np.pad(found.zero, widths, constant_values=keeps)
            )
        return Labelled(found.ids, found.zero & keeps)

    return Rule(labels=moves(move), zero=first if keeps else never)


@register("DepthToSpace", "SpaceToDepth")
def depth_to_space(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__DepthToSpace.html: the channels that make one image leave together."""
    block = op.attribute("blocksize") ** 2  # the channels of one pixel
    to_space, rows_first = op.node.op_type == "DepthToSpace", op.attribute("mode", b"DCR") == b"DCR"

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        found = flow.mix(found, [a for a in found.long if a != 1], f"{op.node.op_type} moves them in space")
        if not found.any:
            return found
        if not to_space and rows_first:
            return found.map(lambda array: np.concatenate([array] * block, axis=1))
        if not to_space:
            return found.map(lambda array: np.repeat(array, block, axis=1))
        count = found.ids.shape[1] // block
        shape = (block, count) if rows_first else (count, block)
        squares = found.map(lambda array: array.reshape(shape))
        squares = flow.mix(squares, [0 if rows_first else 1], "all channels make one image")
        return squares.map(lambda array: array.reshape((1, -1, 1, 1))) if squares.any else Labelled.none(4)

    return Rule(labels=moves(move), zero=first)


@register(
    "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Scatter", "ReverseSequence", "Compress", "Unique"
)
def rearrange(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__GatherND.html and its siblings"""
    return Rule(
        labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} takes channels apart"),
        zero=first if op.node.op_type.startswith("Gather") else never,
    )


@register("Trilu")
def trilu(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Trilu.html: keeps a triangle of the last two axes."""

    def move(flow: LabelFlow, found: Labelled) -> Labelled:
        rank = found.ids.ndim
        return flow.mix(found, (rank - 2, rank - 1), "Trilu keeps a triangle of them")

    return _mover(move)


@register("Shape", since_version=1)
def shape(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Shape.html: knows nothing of the values, but of the lengths."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        if found.any:
            entries = [found.along(axis) if axis in found.long else None for axis in range(found.ids.ndim)]
            flow.book.lengths[op.node.output[0]] = entries[slice(op.attribute("start", 0), op.attribute("end"))]

    return Rule(labels=labels, shape_only=True)


@register("Size")
def size(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Size.html"""
    return Rule(labels=lambda flow: flow.freeze_inputs("the number of elements is computed with"), shape_only=True)


@register("ConstantOfShape")
def constant_of_shape(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html: all zero where its fill is, which is the default."""
    fill = op.attribute("value")
    zero = fill is None or not onnx.numpy_helper.to_array(fill).any()
    return Rule(labels=lambda flow: flow.freeze_inputs("a shape is computed"), zero=lambda _: zero)


@register("Range", "Constant")
def constant(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Constant.html and onnx__Range.html"""
    return Rule(labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} computes with it"))
