"""Cost: trainable parameters and multiply-accumulates for one example."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule, counted_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Trainable parameters, and multiply-accumulates of the dense operators for one example."""

    params: int
    macs: int


def cost_of(graph: TraceGraph, rules: Sequence[Rule | None]) -> Cost:
    """What the whole graph costs; open dimensions other than the batch count as 64."""
    return Cost(
        params=sum(elements(graph, name) for name in counted_parameters(graph, rules)),
        macs=sum(rule.macs for rule in rules if rule is not None),
    )


def elements(graph: TraceGraph, name: str) -> int:
    """How many numbers an initializer holds."""
    return math.prod(graph.initializers[name].dims)


class SlicedAxes:
    """Which indices of initializer axes are cut, and what fraction of each initializer is left."""

    def __init__(self, graph: TraceGraph) -> None:
        self._graph = graph
        self._cut: dict[str, dict[int, set[int]]] = {}

    def cut(self, initializer: str, axis: int, indices: Iterable[int]) -> None:
        """Cut more indices of an axis."""
        self._cut.setdefault(initializer, {}).setdefault(axis, set()).update(indices)

    def left(self, initializer: str) -> float:
        """The fraction of an initializer's elements that is left."""
        dims = self._graph.initializers[initializer].dims
        return float(np.prod([1 - len(cut) / dims[axis] for axis, cut in self._cut.get(initializer, {}).items()]))

    def names(self) -> list[str]:
        """The initializers that are cut."""
        return list(self._cut)
