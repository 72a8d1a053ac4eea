"""Transforms of signals, determinants, and convolutions that are not plain ones."""

from __future__ import annotations

from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.dense import conv
from onnx_asgnas.operators.labelled import Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.recast import recast
from onnx_asgnas.operators.registry import Op, Rule, first, register


@register("DFT", since_version=17)
def fourier(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__DFT.html: sums over its axis, and makes real and imaginary parts."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        rank = found.ids.ndim
        axis = op.attribute("axis", 1) if op.version() < 20 else -2
        if op.version() >= 20 and op.has(2):
            given = op.constant(2)
            if given is None:
                flow.freeze(found.ids, "the axis of this DFT is computed")
                return
            axis = int(given.reshape(-1)[0])
        if found.any:
            flow.write(flow.mix(found, (axis % rank, rank - 1), "DFT sums over this axis"))

    return Rule(labels=labels, zero=first)


@register("STFT", since_version=17)
def short_fourier(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__STFT.html: is not taken apart; the spectrum of zero is zero."""
    return Rule(labels=lambda flow: flow.freeze_inputs("STFT is not taken apart"), zero=first)


@register("Det", since_version=11)
def determinant(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Det.html: of the last two axes; the others go on."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        rank = found.ids.ndim
        mixed = flow.mix(found, (rank - 2, rank - 1), "Det is of the whole matrix")
        if mixed.any:
            flow.write(mixed.map(lambda array: array[..., 0, 0]))

    return Rule(labels=labels, zero=first)


@register("CenterCropPad", since_version=18)
def center_crop_pad(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__CenterCropPad.html: cuts and fills with zeros on its axes."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        rank = found.ids.ndim
        axes = [axis % rank for axis in op.attribute("axes", range(rank))] if rank else []
        if found.any:
            flow.write(flow.mix(found, axes, "CenterCropPad cuts this axis to a given length"))

    return Rule(labels=labels, zero=first)


@register("DeformConv", since_version=19)
def deformable_conv(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__DeformConv.html: a Conv of what it samples; where, all channels share."""
    rule = recast(op, conv, "Conv", (0, 1, 3))

    def labels(flow: LabelFlow) -> None:
        if op.attribute("offset_group", 1) != 1:
            flow.freeze_inputs("DeformConv with offsets by group of channels")
            return
        for position in (2, 4):
            if op.has(position):
                flow.freeze(flow.read(position).ids, "DeformConv samples by it")
        rule.labels(flow)

    return Rule(labels=labels, zero=rule.zero, parameters=rule.parameters, macs=rule.macs)


@register("CausalConvWithState", since_version=27)
def causal_conv(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html: depthwise, over what is and what was.

    The channels of its state, where it is given one, stay.
    """
    data, weight = op.size(0), op.size(1)

    def labels(flow: LabelFlow) -> None:
        channels = flow.channels(0, 1)
        for position in (1, 2):
            if op.has(position):
                own = flow.weight_axis(position, 0, Kind.AFFINE)
                flow.tie(channels.ids, own, "a convolution of channels that stay")
        flow.count_macs(channels.ids)
        if op.has(3):
            flow.freeze(channels.ids, "a state holds all channels")
            flow.freeze(flow.read(3).ids, "a state holds all channels")
        shape = (1, -1, 1)
        flow.write(Labelled.of(channels.ids, True).map(lambda array: array.reshape(shape)))
        flow.write(channels.map(lambda array: array.reshape(shape)), 1)

    return Rule(
        labels=labels,
        zero=lambda zero: zero[0] and all(zero[2:]),
        parameters={1: "weight", 2: "bias"},
        macs=data[2] * elements(weight) if len(data) == 3 and weight else 0,
    )
