"""Normalisations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, first, never, register


@register("BatchNormalization")
def batch_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__BatchNormalization.html"""

    def labels(flow: LabelFlow) -> None:
        channels = flow.channels(0, 1)
        if not channels.any:
            return
        kinds = ((1, Kind.AFFINE), (2, Kind.AFFINE), (3, Kind.CUT), (4, Kind.CUT))
        own = [flow.weight_axis(position, 0, kind) for position, kind in kinds]
        for one, two in pairwise([channels.ids, *own]):
            flow.tie(one, two, "normalises channels that cannot leave")
        flow.write_channels(channels.ids, True, flow.rank(0) or 2, 1)

    return Rule(labels=labels, zero=lambda zero: zero[1] and zero[2], parameters={1: "scale", 2: "bias"})


@register("LRN")
def local_response_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LRN.html: x / (bias + …)^beta is zero where x is, for a positive bias."""

    def labels(flow: LabelFlow) -> None:
        flow.write(flow.mix(flow.read(0), (1,), "LRN mixes neighbouring channels"))

    return Rule(labels=labels, zero=first if op.attribute("bias", 1.0) > 0 else never)


@register("LayerNormalization", since_version=17)
@register("RMSNormalization", since_version=23)
def layer_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LayerNormalization.html and onnx__RMSNormalization.html"""

    def labels(flow: LabelFlow) -> None:
        rank = flow.read(0).ids.ndim
        normalise(flow, range(op.attribute("axis", -1) % max(rank, 1), rank), has_bias=op.has(2))

    return Rule(
        labels=labels,
        zero=lambda zero: (zero[1] or zero[0]) and (len(zero) < 3 or zero[2]) and not op.gives_more(),
        parameters={1: "scale", 2: "bias"},
    )


def normalise(flow: LabelFlow, axes: range, *, has_bias: bool) -> None:
    """Normalised axes count together; what varies beside them (heads) goes on, zero where nothing is added to it.

    The scale and bias lie along the normalised axes, so they are not cut.
    """
    found = flow.read(0)
    if not found.any:
        return
    mixed = flow.mix(found, axes, f"{flow.node.op_type} normalises over this axis")
    for output in range(1, len(flow.node.output)):
        flow.write(Labelled(mixed.ids, np.zeros_like(mixed.zero)), output)
    flow.write(Labelled(mixed.ids, mixed.zero & (not has_bias)))


@register("InstanceNormalization")
def instance_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html"""

    def labels(flow: LabelFlow) -> None:
        found = flow.mix(
            flow.read(0), range(2, flow.read(0).ids.ndim), "InstanceNormalization normalises over this axis"
        )
        if found.any and found.long == (1,):
            channels = found.ids.reshape(-1)
            for position in (1, 2):
                own = flow.weight_axis(position, 0, Kind.AFFINE)
                flow.tie(channels, own, "normalises channels that cannot leave")
            flow.write_channels(channels, True, found.ids.ndim, 1)
        else:
            flow.freeze(found.ids, "InstanceNormalization of channels on another axis")

    return Rule(labels=labels, zero=lambda zero: zero[1] and zero[2], parameters={1: "scale", 2: "bias"})


@register("GroupNormalization", since_version=18)
def group_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__GroupNormalization.html: whole groups leave, and are counted anew.

    Scale and bias are by group before operator set 21, by channel from there on.
    """
    groups = op.attribute("num_groups")

    def labels(flow: LabelFlow) -> None:
        channels = flow.channels(0, 1)
        rank, count = flow.rank(0), len(channels.ids)
        if not (channels.ids >= 0).any() or rank is None:
            return
        table = channels.map(lambda array: array.reshape(groups, count // groups))
        table = flow.mix(table, (1,), "GroupNormalization normalises over this axis") if groups > 1 else table
        if groups == 1 or not table.any:
            flow.freeze(channels.ids, "GroupNormalization normalises over this axis")
            return
        spread: Ids = np.repeat(table.ids.reshape(-1), count // groups)
        flow.size_attribute("num_groups", table.ids.reshape(-1, 1))
        for position in (1, 2):
            own = flow.weight_axis(position, 0, Kind.AFFINE)
            flow.tie(spread if len(own) == count else table.ids.reshape(-1), own, "normalises channels that stay")
        flow.write_channels(spread, True, rank, 1)

    return Rule(labels=labels, zero=lambda zero: zero[1] and zero[2], parameters={1: "scale", 2: "bias"})


@register("LpNormalization")
def lp_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LpNormalization.html: zero over its norm is zero from operator set 22 on."""
    defined = op.version() >= 22

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        axis = op.attribute("axis", -1) % max(found.ids.ndim, 1)
        flow.write(flow.mix(found, (axis,), "LpNormalization normalises over this axis"))
        if not defined:
            flow.freeze(found.ids[(found.ids >= 0) & found.zero], "LpNormalization is not finite at zero")

    return Rule(labels=labels, zero=first if defined else never, poles=() if defined else (0,))


@register("MeanVarianceNormalization", since_version=9)
def mean_variance_normalization(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html: runtimes divide by a deviation of zero."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        axes = [axis % max(found.ids.ndim, 1) for axis in op.attribute("axes", (0, 2, 3))]
        flow.write(flow.mix(found, axes, "MeanVarianceNormalization normalises over this axis"))
        flow.freeze(found.ids[(found.ids >= 0) & found.zero], "MeanVarianceNormalization is not finite at zero")

    return Rule(labels=labels, poles=(0,))
