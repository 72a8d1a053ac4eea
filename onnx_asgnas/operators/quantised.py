"""Operators of quantised networks.

"Zero" is meant in the dequantised sense: a quantised tensor is at its zero point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.dense import conv, matmul
from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.quantisation import same_zero
from onnx_asgnas.operators.recast import recast
from onnx_asgnas.operators.registry import Op, Quantised, Rule, first, never, register

MICROSOFT = "com.microsoft"


@register("QuantizeLinear", since_version=10)
@register("QuantizeLinear", domain=MICROSOFT)
def quantize(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html: zero goes to the zero point."""
    how = _how(op)
    return Rule(
        labels=lambda flow: flow.write(_cut_beside(flow, flow.read(0), how)),
        zero=first,
        view=lambda flow: _viewed(flow, how),
    )


@register("DequantizeLinear", since_version=10)
@register("DequantizeLinear", domain=MICROSOFT)
def dequantize(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html: a view of a weight, with its scales and zero points.

    An activation stays zero where what quantised it has the same zero point.
    """
    how, name = _how(op), op.node.input[0]
    zero_point = op.node.input[2] if op.has(2) else ""
    stored = name in op.graph.initializers
    sound = same_zero(op.graph, name, zero_point)

    def labels(flow: LabelFlow) -> None:
        found = _cut_beside(flow, flow.read(0), how)
        flow.write(Labelled(found.ids, found.zero & sound))

    def view(flow: LabelFlow) -> Sequence[Ids] | None:
        return _viewed(flow, how) if (_alone(op) if stored else sound) else None

    return Rule(
        labels=labels,
        zero=first if sound else never,
        view=view,
        quantised={0: how} if stored else {},
    )


def _how(op: Op) -> Quantised:
    return Quantised(scale=1, zero_point=2, axis=op.attribute("axis", 1), block=op.attribute("block_size", 0))


def _alone(op: Op) -> bool:
    """Do all that read this weight read it with the same scale and zero point."""
    nodes = [op.graph.nodes[index] for index in op.graph.consumers[op.node.input[0]]]
    if op.has(2) and op.node.input[2] not in op.graph.initializers:
        return False
    axes = [[a.SerializeToString() for a in node.attribute] for node in nodes]
    return all(
        node.op_type == op.node.op_type and node.input[:] == op.node.input[:] and own == axes[0]
        for node, own in zip(nodes, axes, strict=True)
    )


def _viewed(flow: LabelFlow, how: Quantised) -> Sequence[Ids] | None:
    factors = flow.factors(0)
    if factors is None:
        return None
    found = [_cut_beside(flow, Labelled.of(ids, True), how) for ids in factors]
    return [one.ids for one in found if one.long]


def _cut_beside(flow: LabelFlow, found: Labelled, how: Quantised) -> Labelled:
    """Cut the scales and zero points that lie along labelled axes; a block of places leaves as a whole."""
    for position in (how.scale, how.zero_point):
        if found.any and position is not None and position < len(flow.node.input) and flow.node.input[position]:
            _cut_one(flow, found, position, how)
    return found


def _cut_one(flow: LabelFlow, found: Labelled, position: int, how: Quantised) -> None:
    size, rank = flow.size(position), found.ids.ndim
    if size is None:
        flow.freeze(found.ids, "a scale of unknown shape")
        return
    axis = how.axis % rank
    if all(n == 1 for n in size):
        return  # one number for all of them, or one block that only gets shorter
    for place, own_axis in [(axis, 0)] if len(size) == 1 else [(a, a) for a in range(rank)]:
        blocks = len(size) > 1 and place == axis and how.block > 0
        if place not in found.long or (blocks and size[own_axis] == 1):
            continue
        table = found.along(place)
        own = _stored_axis(flow, position, own_axis, size[own_axis])
        own = np.repeat(own, how.block)[: len(table)] if blocks else own
        flow.tie(table, np.broadcast_to(own[:, None], table.shape), f"{flow.node.op_type} by a scale that is computed")


def _stored_axis(flow: LabelFlow, position: int, axis: int, length: int) -> Ids:
    """The labels of an axis of a scale or zero point; of the zero points of an int32 bias too, which else have none."""
    if flow.node.input[position] in flow.book.graph.initializers:
        return flow.own_axis(position, axis, length, Kind.CUT)
    return flow.weight_axis(position, axis, Kind.CUT)


@register("DynamicQuantizeLinear", since_version=11)
def dynamic_quantize(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html: its range is that of all values and of zero.

    So a channel that is zero has no part in it.
    """

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        flow.needs_zero(found)
        flow.write(found)
        flow.written |= {1, 2}  # one number each, for all channels

    return Rule(labels=labels, poles=(0,))


@register("MatMulInteger", since_version=10)
def matmul_integer(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__MatMulInteger.html: a MatMul of (a - its zero point) and the weight's."""
    how = Quantised(zero_point=3, axis=-1)
    return product(op, recast(op, matmul, "MatMul", (0, 1)), data=0, zero_point=2, weight=1, how=how)


@register("ConvInteger", since_version=10)
def conv_integer(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ConvInteger.html: a Conv of (x - its zero point) and the weight's."""
    how = Quantised(zero_point=3)
    return product(op, recast(op, conv, "Conv", (0, 1)), data=0, zero_point=2, weight=1, how=how)


@register("QLinearConv", since_version=10)
def qlinear_conv(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__QLinearConv.html: a Conv, quantised anew."""
    how = Quantised(scale=4, zero_point=5)
    return product(op, recast(op, conv, "Conv", (0, 3)), data=0, zero_point=2, weight=3, how=how, bias=8)


@register("QLinearMatMul", since_version=10)
def qlinear_matmul(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html: a MatMul, quantised anew."""
    how = Quantised(scale=4, zero_point=5, axis=-1)
    return product(op, recast(op, matmul, "MatMul", (0, 3)), data=0, zero_point=2, weight=3, how=how)


@register("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(op: Op) -> Rule:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulIntegerToFloat"""
    how = Quantised(scale=3, zero_point=5, axis=-1)
    return product(op, recast(op, matmul, "MatMul", (0, 1)), data=0, zero_point=4, weight=1, how=how, bias=6)


@register("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(op: Op) -> Rule:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DynamicQuantizeMatMul

    It quantises what it reads by the range of all values and of zero, in which a channel that is zero has no part.
    """
    how = Quantised(scale=2, zero_point=3, axis=-1)
    return product(op, recast(op, matmul, "MatMul", (0, 1)), data=0, zero_point=None, weight=1, how=how, bias=4)


@register("MatMulNBits", domain=MICROSOFT)
def matmul_of_packed_bits(op: Op) -> Rule:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits

    The weight is packed, [N, blocks of K, bytes], with a scale for each block: an output is zero when its scales are.
    What it reads stays, since a block holds several channels.
    """
    rows, columns, data = op.attribute("N"), op.attribute("K"), op.size(0)

    def labels(flow: LabelFlow) -> None:
        flow.freeze(flow.read(0).ids, "MatMulNBits reads its channels in blocks")
        made = flow.own_axis(1, 0, rows, Kind.CUT)
        for position, kind in ((2, Kind.PRODUCED), (3, Kind.CUT), (5, Kind.AFFINE)):
            if not op.has(position):
                continue
            size = flow.size(position)
            stored = op.node.input[position] in op.graph.initializers
            if not stored or not size or size[0] % rows:
                flow.freeze(made, "MatMulNBits of a computed weight")
                continue
            table = flow.own_axis(position, 0, size[0], kind).reshape(rows, -1)
            flow.tie(np.broadcast_to(made[:, None], table.shape), table, "the parts of a row leave together")
        flow.size_attribute("N", made[:, None])
        flow.count_macs(made)
        if data:
            flow.write_channels(made, True, len(data), len(data) - 1)

    return Rule(
        labels=labels,
        parameters={1: "weight", 5: "bias"},
        quantised={1: Quantised()},
        macs=elements(data[:-1]) * columns * rows if data else 0,
    )


def product(
    op: Op, rule: Rule, *, data: int, zero_point: int | None, weight: int, how: Quantised, bias: int | None = None
) -> Rule:
    """A product of an activation and a quantised weight, given the rule of the one of floats.

    `zero_point` is that of the activation, None where it is a float; `bias` the position of what is added by output.
    """
    sound = zero_point is None or is_zero_at(op, data, zero_point)
    beside = [p for p in (how.scale, how.zero_point) if p is not None and op.has(p)]

    def labels(flow: LabelFlow) -> None:
        if not op.is_weight(weight):
            flow.freeze_inputs(f"{op.node.op_type} of two activations")
            return
        if not sound:
            flow.freeze(flow.read(data).ids, f"{op.node.op_type} reads by another zero point than theirs")
        rule.labels(flow)
        for position in beside:
            _cut_outputs(flow, weight, how.axis, position)
        if bias is not None and op.has(bias):
            rows = flow.weight_axis(weight, how.axis, Kind(0))
            stored = op.node.input[bias] in op.graph.initializers
            own = flow.own_axis(bias, 0, len(rows), Kind.AFFINE) if stored else np.full(len(rows), -1)
            flow.tie(rows, own, "the bias is computed")

    weights = {weight: how} if op.is_weight(weight) else {}
    biases = {bias: Quantised()} if weights and bias is not None and op.has(bias) else {}
    return Rule(
        labels=labels,
        zero=(lambda zero: zero[0] and all(zero[p] for p in biases)) if sound else never,
        parameters={weight: "weight", **{p: "bias" for p in biases}} if weights else {},
        macs=rule.macs,
        quantised=weights | biases,
    )


def is_zero_at(op: Op, data: int, zero_point: int) -> bool:
    """Is a quantised activation zero, in the dequantised sense, at this one number."""
    name = op.node.input[zero_point] if op.has(zero_point) else ""
    one = not name or all(n == 1 for n in op.size(zero_point))
    return one and same_zero(op.graph, op.node.input[data], name)


def _cut_outputs(flow: LabelFlow, weight: int, axis: int, position: int) -> None:
    """Cut what a weight has for each of its outputs: scales, zero points."""
    size = flow.size(position)
    if size is None or all(n == 1 for n in size):
        return
    rows = flow.weight_axis(weight, axis, Kind(0))
    own = _stored_axis(flow, position, 0, size[0]) if len(size) == 1 else rows[:0]
    if len(own) == len(rows):
        flow.tie(rows, own, f"{flow.node.op_type} by a scale that is computed")
    else:
        flow.freeze(rows, f"{flow.node.op_type} by scales that do not lie along its outputs")
