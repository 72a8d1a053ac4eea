"""Operators that reduce axes."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.operators.labels import LabelFlow, Labelled
from onnx_asgnas.operators.registry import Op, Rule, first, register


@register("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceSumSquare")
def reduce_zero_preserving(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ReduceMean.html and its siblings"""
    return Rule(labels=lambda flow: _reduce(flow, op), zero=first)


@register("ReduceProd", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin", "CumSum", "TopK")
def reduce_any(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__ReduceProd.html and its siblings"""
    return Rule(
        labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} runs over channels"),
        poles=(0,) if op.node.op_type == "ReduceLogSum" else (),
    )


def _reduce(flow: LabelFlow, op: Op) -> None:
    found = flow.read(0)
    if not found.any:
        return
    rank = found.ids.ndim
    axes = op.constant(1) if op.has(1) else op.attribute("axes")
    if op.has(1) and axes is None:
        flow.freeze(found.ids, "the axes of the reduction are computed")
        return
    no_axes = axes is None or len(axes) == 0
    reduced = (
        (() if op.attribute("noop_with_empty_axes", 0) else tuple(range(rank)))
        if no_axes
        else tuple(int(a) % rank for a in np.asarray(axes))
    )
    if any(found.ids.shape[axis] > 1 for axis in reduced):
        flow.freeze(found.ids, f"{op.node.op_type} runs over channels")
        return
    if op.attribute("keepdims", 1):
        flow.write(found)
    else:
        kept = [n for axis, n in enumerate(found.ids.shape) if axis not in reduced]
        flow.write(Labelled(found.ids.reshape(kept), found.zero.reshape(kept)))
