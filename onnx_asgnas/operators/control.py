"""Control flow: what a subgraph reads stays as it is.

What a body or a branch captures from outside, and what is handed to it, is frozen; parameters inside of it stay, and
its multiply-accumulates are not counted, since nobody knows how often it runs.
"""

from __future__ import annotations

from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, register


@register("If", "Loop", "Scan", "SequenceMap")
def control_flow(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__If.html and its siblings: what their subgraphs read stays."""

    def labels(flow: LabelFlow) -> None:
        flow.freeze_inputs(f"the subgraph of {op.node.op_type} '{op.node.name}' reads them")

    return Rule(labels=labels)
