"""Operators that reduce axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.operators.labelled import Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.pointwise import freeze_at_pole
from onnx_asgnas.operators.registry import Op, Rule, first, never, register

_SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
"""Reductions to which a channel that is zero adds nothing."""


@register("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceSumSquare")
def reduce_zero_preserving(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ReduceMean.html and its siblings"""
    return Rule(labels=lambda flow: _reduce(flow, op, keeps_zero=True), zero=first)


@register("ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
def reduce_any(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ReduceProd.html and its siblings"""
    pole = op.node.op_type == "ReduceLogSum"

    def labels(flow: LabelFlow) -> None:
        if pole:
            freeze_at_pole(flow, 0)
        _reduce(flow, op, keeps_zero=False)

    return Rule(labels=labels, poles=(0,) if pole else ())


@register("ArgMax", "ArgMin")
def argument(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ArgMax.html: gives places on its axis."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        flow.freeze(found.ids, f"{op.node.op_type} compares channels")

    return Rule(labels=labels)


@register("CumSum", "CumProd")
def cumulative(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__CumSum.html: each place counts for those behind it.

    Zero stays zero, but for a product of none, with which an exclusive CumProd begins.
    """
    keeps = op.node.op_type == "CumSum" or not op.attribute("exclusive", 0)

    def labels(flow: LabelFlow) -> None:
        found, axis = flow.read(0), op.constant(1)
        if found.any and axis is not None:
            place = int(axis.reshape(-1)[0]) % found.ids.ndim
            mixed = flow.mix(found, (place,), f"{op.node.op_type} runs over channels")
            flow.write(Labelled(mixed.ids, mixed.zero & keeps))
        else:
            flow.freeze(found.ids, f"{op.node.op_type} over a computed axis")

    return Rule(labels=labels, zero=first if keeps else never)


@register("TopK")
def top_k(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__TopK.html: chooses among what lies on its axis; its indices are not zero."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        if not found.any:
            return
        mixed = flow.mix(found, (op.attribute("axis", -1) % found.ids.ndim,), "TopK chooses among channels")
        flow.write(mixed, 0)
        flow.write(Labelled(mixed.ids, np.zeros_like(mixed.zero)), 1)

    return Rule(labels=labels, zero=never)


def _reduce(flow: LabelFlow, op: Op, *, keeps_zero: bool) -> None:
    found = flow.read(0)
    if not found.any:
        return
    axes = _reduced(op, found.ids.ndim)
    if axes is None:
        flow.freeze(found.ids, "the axes of the reduction are computed")
        return
    if op.node.op_type in (*_SUMS, "ReduceMean") and set(found.long) <= set(axes) and len(found.long) == 1:
        flow.needs_zero(found)  # a sum over all channels needs none that is zero
        if op.node.op_type == "ReduceMean":
            flow.mean_over(found.along(found.long[0]))
        return
    mixed = flow.mix(found, axes, f"{op.node.op_type} runs over channels")
    result = Labelled(mixed.ids, mixed.zero & keeps_zero)
    if not op.attribute("keepdims", 1):
        kept = [n for axis, n in enumerate(mixed.ids.shape) if axis not in axes]
        result = result.map(lambda array: array.reshape(kept))
    flow.write(result)


def _reduced(op: Op, rank: int) -> Sequence[int] | None:
    """The axes that are reduced, counted from the front; None where they are computed."""
    axes = op.constant(1) if op.has(1) else op.attribute("axes")
    if op.has(1) and axes is None:
        return None
    if axes is None or len(axes) == 0:
        return () if op.attribute("noop_with_empty_axes", 0) else range(rank)
    return [int(axis) % rank for axis in np.asarray(axes)]
