"""What a model costs, without running it."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.operators import rules_of
from onnx_asgnas.space import cost_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Trainable parameters, multiply-accumulates for one example, and the size of the model's file in bytes."""

    params: int
    macs: int
    bytes: int


def profile(source: ModelSource | TraceGraph) -> Profile:
    """What a model costs in its normal form, in which full and compact are alike but for what was removed.

    Open dimensions other than the batch count as 64, or what the network needs instead. Raises ModelError for a
    model that cannot be read.
    """
    graph = source if isinstance(source, TraceGraph) else TraceGraph.of(source)
    cost = cost_of(graph, rules_of(graph))
    return Profile(params=cost.params, macs=cost.macs, bytes=graph.model.ByteSize())
