"""Operators that contract an axis with a weight: Conv, Gemm, MatMul."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.labels import Kind, LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, register


def _product_and_bias(zero: tuple[bool, ...]) -> bool:
    return (zero[0] or zero[1]) and all(zero[2:])


@register("Conv")
def conv(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Conv.html"""
    weight, output = op.size(1), op.output_size()
    group = op.attribute("group", 1)
    inputs = weight[1] * group if len(weight) > 1 else 0

    def labels(flow: LabelFlow) -> None:
        channels = flow.channels(0, 1)
        depthwise = group > 1 and group == inputs
        behind = Kind.AFFINE if depthwise else Kind.PRODUCED
        rows = flow.weight_axis(1, 0, behind)
        if op.has(2):
            flow.tie(rows, flow.weight_axis(2, 0, behind), "the bias is computed")
        if group == 1:
            flow.contract(channels, flow.weight_axis(1, 1, Kind.CUT))
        elif depthwise:
            ids = np.broadcast_to(channels.ids, (inputs,))
            flow.tie(rows, np.repeat(ids, len(rows) // inputs), "a depthwise Conv of channels that stay")
            flow.size_attribute("group", channels.ids)
        else:
            flow.freeze(np.concatenate([channels.ids, rows]), "a grouped Conv needs all channels of its groups")
        flow.write_channels(rows, True, len(weight) or 2, 1)

    return Rule(
        labels=labels,
        zero=_product_and_bias,
        parameters={1: "weight", 2: "bias"},
        macs=elements(weight) * elements(output[2:]) if weight and output else 0,
    )


@register("Gemm")
def gemm(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Gemm.html"""
    turned = bool(op.attribute("transB", 0))
    weight = op.size(1)
    if op.attribute("transA", 0) or not op.is_weight(1):
        return Rule(
            labels=lambda flow: flow.freeze_inputs("this form of Gemm is not taken apart"),
            zero=_product_and_bias,
            parameters={2: "bias"},
            macs=elements(op.size(0)) * (op.output_size() or (0,))[-1],
        )

    def labels(flow: LabelFlow) -> None:
        columns_axis, rows_axis = (1, 0) if turned else (0, 1)
        flow.contract(flow.channels(0, 1), flow.weight_axis(1, columns_axis, Kind.CUT))
        rows = flow.weight_axis(1, rows_axis, Kind.PRODUCED)
        if op.has(2):
            bias = op.size(2)
            if bias and bias[-1] == len(rows):
                flow.tie(rows, flow.weight_axis(2, -1, Kind.PRODUCED), "the bias is computed")
            else:
                flow.freeze(rows, "a bias of another length is added")
        flow.write_channels(rows, True, 2, 1)

    return Rule(labels=labels, zero=_product_and_bias, parameters={1: "weight", 2: "bias"}, macs=elements(weight))


@register("MatMul")
def matmul(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__MatMul.html"""
    left, right = op.size(0), op.size(1)
    macs = elements(op.output_size()) * left[-1] if left and right else 0
    if not op.is_weight(1) or len(right) != 2 or not op.is_activation(0):
        parameters = {i: "weight" for i in (0, 1) if op.is_weight(i)}
        return Rule(
            labels=lambda flow: flow.freeze_inputs("this form of MatMul is not taken apart"),
            zero=any,
            parameters=parameters,
            macs=macs,
        )

    def labels(flow: LabelFlow) -> None:
        flow.contract(flow.channels(0, -1), flow.weight_axis(1, 0, Kind.CUT))
        rows = flow.weight_axis(1, 1, Kind.PRODUCED)
        rank = flow.rank(0)
        if rank is None:
            flow.freeze(rows, "the rank of the input is unknown")
        else:
            flow.write_channels(rows, True, rank, rank - 1)

    return Rule(labels=labels, zero=any, parameters={1: "weight"}, macs=macs)


@register("ConvTranspose")
def conv_transpose(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ConvTranspose.html"""
    weight, data = op.size(1), op.size(0)

    def labels(flow: LabelFlow) -> None:
        if op.attribute("group", 1) != 1:
            flow.freeze_inputs("a grouped ConvTranspose needs all channels of its groups")
            return
        flow.contract(flow.channels(0, 1), flow.weight_axis(1, 0, Kind.CUT))
        rows = flow.weight_axis(1, 1, Kind.PRODUCED)
        if op.has(2):
            flow.tie(rows, flow.weight_axis(2, 0, Kind.PRODUCED), "the bias is computed")
        flow.write_channels(rows, True, len(weight) or 2, 1)

    return Rule(
        labels=labels,
        zero=_product_and_bias,
        parameters={1: "weight", 2: "bias"},
        macs=elements(weight) * elements(data[2:]) if weight and data else 0,
    )
