"""Operators that move data about and change no value."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_asgnas.operators.labels import Ids, Kind, LabelFlow, Labelled
from onnx_asgnas.operators.registry import Joint, Op, Rule, first, never, register


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
        if any(flow.rank(p) is None for p in positions):
            flow.freeze_inputs("the rank of an operand is unknown")
            return
        parts = [_joined(flow, p, axis, op.size(p)[axis]) for p in positions]
        ids = np.concatenate([p.ids.reshape(-1) for p in parts])
        zero = np.concatenate([p.zero.reshape(-1) for p in parts])
        flow.write_channels(ids, zero, rank, axis)

    return Rule(labels=labels, zero=all, joint=joint)


def _joined(flow: LabelFlow, position: int, axis: int, length: int) -> Labelled:
    """The labels of one operand along the axis; channels without one get a SOURCE label, zero when the operand is."""
    found = flow.channels(position, axis)
    if (found.ids >= 0).all():
        return found
    source = flow.own_axis(position, axis, length, Kind.SOURCE)
    return Labelled(np.where(found.ids >= 0, found.ids, source), found.zero | (found.ids < 0))


@register("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def reshape(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Reshape.html and its siblings"""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        source, target = op.size(0), op.output_size()
        ids = _reshaped(found.ids, source, target) if found.any and source and target else None
        if ids is None:
            flow.freeze(found.ids, f"{op.node.op_type} splits the channels, or its shapes are unknown")
            return
        zero = _reshaped(found.zero.astype(np.int64), source, target)
        assert zero is not None
        if op.node.op_type == "Reshape" and not _write_sizes(flow, op, ids):
            flow.freeze(found.ids, "the target of this Reshape is computed")
            return
        flow.write(Labelled(ids, zero.astype(bool)))

    return Rule(labels=labels, zero=first)


def _write_sizes(flow: LabelFlow, op: Op, ids: Ids) -> bool:
    """Note the entries of a constant target that are the length of a labelled axis."""
    target = op.constant(1)
    for axis, count in enumerate(ids.shape):
        if count > 1:
            if target is None:
                return False
            if target[axis] > 0:
                flow.size_slot(1, axis, ids.reshape(-1))
    return True


def _reshaped(values: Ids, source: tuple[int, ...], target: tuple[int, ...]) -> Ids | None:
    """Reshape labels as data, expanding only the axes that must be; None where a labelled axis would be split."""
    if 0 in source:
        return None
    shape: list[int] = []
    data: list[int] = []
    i = j = 0
    while i < len(source) or j < len(target):
        block_in, block_out = [i] if i < len(source) else [], [j] if j < len(target) else []
        n, m = _product(source, block_in), _product(target, block_out)
        while n != m:
            if n < m:
                block_in.append(block_in[-1] + 1 if block_in else i)
                n = _product(source, block_in)
            else:
                block_out.append(block_out[-1] + 1 if block_out else j)
                m = _product(target, block_out)
        labelled = any(values.shape[a] > 1 for a in block_in)
        long_out = [a for a in block_out if target[a] > 1]
        if labelled and len(long_out) > 1:
            return None
        data += [source[a] if labelled else 1 for a in block_in]
        shape += [n if labelled and a in long_out else 1 for a in block_out]
        i, j = i + len(block_in), j + len(block_out)
    return np.broadcast_to(values, data).reshape(shape)


def _product(sizes: tuple[int, ...], axes: list[int]) -> int:
    return int(np.prod([sizes[a] for a in axes if a < len(sizes)], dtype=np.int64))


@register("Transpose")
def transpose(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Transpose.html"""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        if not found.any:
            return
        order = op.attribute("perm", list(range(found.ids.ndim))[::-1])
        flow.write(Labelled(found.ids.transpose(order), found.zero.transpose(order)))

    return Rule(labels=labels, zero=first)


@register("Expand", "Tile", "Slice", "Gather", "Split", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth")
def rearrange(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Slice.html and its siblings"""
    data = op.is_activation(0)

    def labels(flow: LabelFlow) -> None:
        flow.freeze_inputs(f"{op.node.op_type} takes channels apart")

    return Rule(
        labels=labels,
        zero=first,
        parameters={0: "embedding"} if op.node.op_type == "Gather" and op.is_weight(0) and not data else {},
    )


@register("Pad")
def pad(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Pad.html: zero stays zero where the padding is."""
    fill = 0.0
    if op.has(2):
        name = op.node.input[2]
        fill = float(op.graph.array(name).reshape(-1)[0]) if name in op.graph.initializers else 1.0
    fill = op.attribute("value", fill)
    keeps = op.attribute("mode", b"constant") != b"constant" or fill == 0

    def labels(flow: LabelFlow) -> None:
        found, amounts = flow.read(0), op.constant(1) if op.has(1) else np.array(op.attribute("pads", ()))
        labelled = [axis for axis, count in enumerate(found.ids.shape) if count > 1]
        rank = found.ids.ndim
        if op.has(3) or amounts is None or any(amounts[a] or amounts[a + rank] for a in labelled):
            flow.freeze(found.ids, "Pad along the channels")
        else:
            flow.write(Labelled(found.ids, found.zero & keeps))

    return Rule(labels=labels, zero=first if keeps else never)


@register("Shape", "Size")
def shape(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Shape.html: knows nothing of the values."""
    return Rule(labels=lambda flow: flow.freeze_inputs("the length of this axis is computed with"), shape_only=True)


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
