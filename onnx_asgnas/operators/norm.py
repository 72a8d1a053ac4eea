"""Normalisations."""

from __future__ import annotations

from onnx_asgnas.operators.labels import Kind, LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, first, never, register


@register("BatchNormalization")
def batch_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__BatchNormalization.html"""

    def labels(flow: LabelFlow) -> None:
        channels = flow.channels(0, 1)
        for position, kind in ((1, Kind.AFFINE), (2, Kind.AFFINE), (3, Kind.CUT), (4, Kind.CUT)):
            flow.tie(channels.ids, flow.weight_axis(position, 0, kind), "normalises channels that cannot leave")
        flow.write_channels(channels.ids, True, flow.rank(0) or 2, 1)

    return Rule(labels=labels, zero=lambda zero: zero[1] and zero[2], parameters={1: "scale", 2: "bias"})


@register("LRN")
def local_response_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LRN.html: x / (bias + …)^beta is zero where x is, for a positive bias."""
    return Rule(
        labels=lambda flow: flow.freeze_inputs("LRN mixes neighbouring channels"),
        zero=first if op.attribute("bias", 1.0) > 0 else never,
    )


@register("LayerNormalization", since_version=17)
def layer_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LayerNormalization.html"""
    return Rule(
        labels=lambda flow: flow.freeze_inputs("LayerNormalization normalises over this axis"),
        zero=lambda zero: zero[1] and (len(zero) < 3 or zero[2]) and not op.gives_more(),
        parameters={1: "scale", 2: "bias"},
    )


@register("InstanceNormalization")
@register("GroupNormalization", since_version=21)
def instance_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__GroupNormalization.html and onnx__InstanceNormalization.html"""
    return Rule(
        labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} mixes channels of a group"),
        zero=lambda zero: zero[1] and zero[2],
        parameters={1: "scale", 2: "bias"},
    )
