"""Operators on quantised tensors, each of which has its scale and zero point: what they are seen as, quantised anew.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.operators.dense import gemm
from onnx_asgnas.operators.labelled import Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.layout import concat
from onnx_asgnas.operators.pointwise import add, mul, not_zero_preserving, zero_preserving
from onnx_asgnas.operators.quantised import MICROSOFT, is_zero_at, product
from onnx_asgnas.operators.recast import recast
from onnx_asgnas.operators.registry import Declaration, Op, Quantised, Rule, never, register
from onnx_asgnas.operators.spatial import pool


@register("QLinearAdd", domain=MICROSOFT)
def qlinear_add(op: Op) -> Rule:
    """#com.microsoft.QLinearAdd"""
    return _on_quantised(op, add, "Add", (0, 3))


@register("QLinearMul", domain=MICROSOFT)
def qlinear_mul(op: Op) -> Rule:
    """#com.microsoft.QLinearMul"""
    return _on_quantised(op, mul, "Mul", (0, 3))


@register("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(op: Op) -> Rule:
    """#com.microsoft.QLinearLeakyRelu"""
    return _on_quantised(op, zero_preserving, "LeakyRelu", (0,))


@register("QLinearSigmoid", domain=MICROSOFT)
def qlinear_sigmoid(op: Op) -> Rule:
    """#com.microsoft.QLinearSigmoid"""
    return _on_quantised(op, not_zero_preserving, "Sigmoid", (0,))


@register("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(op: Op) -> Rule:
    """#com.microsoft.QLinearGlobalAveragePool: with channels on the last axis it is not taken apart."""
    if op.attribute("channels_last", 0):
        return Rule(labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} with channels last"))
    return _on_quantised(op, pool, op.node.op_type.removeprefix("QLinear"), (0,))


@register("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(op: Op) -> Rule:
    """#com.microsoft.QLinearConcat: the scale and zero point of the output stand first."""
    return _on_quantised(op, concat, "Concat", tuple(range(2, len(op.node.input), 3)))


@register("QGemm", domain=MICROSOFT)
def qgemm(op: Op) -> Rule:
    """#com.microsoft.QGemm: a Gemm with a bias in whole numbers; of floats where it is given no scale."""
    if op.attribute("transA", 0):
        return Rule(labels=lambda flow: flow.freeze_inputs("QGemm of a transposed activation"))
    how = Quantised(scale=4, zero_point=5, axis=0 if op.attribute("transB", 0) else 1)
    return product(op, recast(op, gemm, "Gemm", (0, 3)), data=0, zero_point=2, weight=3, how=how, bias=6)


def _on_quantised(op: Op, declare: Declaration, op_type: str, inputs: Sequence[int]) -> Rule:
    """The rule of the operator on floats, where what each input is zero at is its zero point, two inputs behind it."""
    rule = recast(op, declare, op_type, inputs)
    others = [p for p in inputs if not is_zero_at(op, p, p + 2)]

    def labels(flow: LabelFlow) -> None:
        rule.labels(flow)
        for output in flow.node.output[:1] if others else ():
            found = flow.book.tensors.get(output)
            if found is not None:
                flow.write(Labelled(found.ids, np.zeros_like(found.zero)))

    weights = any(op.is_weight(p) for p in inputs)
    return Rule(labels=labels, zero=never if others or weights else rule.zero)
