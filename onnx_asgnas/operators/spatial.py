"""Operators over the spatial axes, channel by channel."""

from __future__ import annotations

from onnx_asgnas.operators.labelled import Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.layout import follows
from onnx_asgnas.operators.registry import Op, Rule, first, never, register


def channel_by_channel(flow: LabelFlow) -> Labelled:
    """The labels on batch and channels; what lies along the spatial axes is mixed."""
    found = flow.read(0)
    return flow.mix(found, range(2, found.ids.ndim), f"{flow.node.op_type} mixes along an axis that carries channels")


@register("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pool(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__MaxPool.html and its siblings: zero in, zero out; not MaxPool's indices."""

    def labels(flow: LabelFlow) -> None:
        found = channel_by_channel(flow)
        if op.gives_more():
            flow.freeze(found.ids, "the indices of this MaxPool count the channels")
        flow.write(found)

    return Rule(labels=labels, zero=never if op.gives_more() else first)


@register("Resize", "Upsample")
def resize(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Resize.html"""
    before, after = op.size(0), op.output_size()
    same = [len(before) == len(after) and before[axis] == after[axis] for axis in range(len(before))]
    fills = op.attribute("extrapolation_value", 0.0) != 0

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        if not found.any:
            return
        reason = f"{op.node.op_type} resizes the axis of the channels"
        found = flow.mix(found, [axis for axis in range(len(same)) if not same[axis]], reason)
        if not same:
            flow.freeze(found.ids, reason)
            return
        if op.has(3):
            axes = list(op.attribute("axes", range(len(same))))
            for axis in found.long:
                if axis not in axes or follows(flow, 3, axes.index(axis), found.along(axis)):
                    continue
                if not flow.size_slot(3, axes.index(axis), found.along(axis)):
                    flow.freeze(found.ids, "the sizes of this Resize are computed")
                    return
        flow.write(Labelled(found.ids, found.zero & (not fills)))

    return Rule(labels=labels, zero=never if fills else first)


@register("GridSample", "RoiAlign", "MaxRoiPool", "AffineGrid", "Col2Im", "MaxUnpool", since_version=1)
def sample(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__GridSample.html and its siblings: the first two keep the channels apart."""

    def labels(flow: LabelFlow) -> None:
        if op.node.op_type not in ("GridSample", "RoiAlign", "MaxRoiPool"):
            flow.freeze_inputs(f"{op.node.op_type} is not taken apart")
            return
        for position in range(1, len(op.node.input)):
            flow.freeze(flow.read(position).ids, f"{op.node.op_type} samples by it")
        found = channel_by_channel(flow)
        if 0 in found.long:
            flow.freeze(found.ids, f"{op.node.op_type} of labelled batches")
        else:
            flow.write(found)

    return Rule(labels=labels, zero=first if op.node.op_type in ("GridSample", "RoiAlign", "MaxRoiPool") else never)
