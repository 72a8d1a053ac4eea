"""Operators over the spatial axes, channel by channel."""

from __future__ import annotations

from onnx_asgnas.operators.labels import LabelFlow, Labelled
from onnx_asgnas.operators.registry import Op, Rule, first, never, register


def _channels_only(flow: LabelFlow) -> None:
    """Labels on the channel axis pass; others would be mixed."""
    found = flow.read(0)
    if any(count > 1 for axis, count in enumerate(found.ids.shape) if axis != 1):
        flow.freeze(found.ids, f"{flow.node.op_type} mixes along an axis that carries channels")
    else:
        flow.write(Labelled(found.ids, found.zero))


@register("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pool(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__MaxPool.html and its siblings: zero in, zero out; not MaxPool's indices."""
    return Rule(labels=_channels_only, zero=never if op.gives_more() else first)


@register("Resize", "Upsample")
def resize(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Resize.html"""
    before, after = op.size(0)[:2], op.output_size()[:2]
    spatial = len(before) == 2 and before == after
    fills = op.attribute("extrapolation_value", 0.0) != 0

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        constant_sizes = op.has(3) and op.constant(3) is not None
        if not spatial or fills or (op.has(3) and not constant_sizes):
            flow.freeze(found.ids, "this form of Resize may change the channels")
            return
        if constant_sizes and found.any:
            flow.size_slot(3, 1, found.ids.reshape(-1))
        _channels_only(flow)

    return Rule(labels=labels, zero=never if fills else first)
