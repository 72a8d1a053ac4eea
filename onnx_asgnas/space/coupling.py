"""Channel groups: labels flow through the whole graph, and what is tied leaves together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule
from onnx_asgnas.operators.labels import Ids, Kind, LabelBook, LabelFlow


@dataclass(frozen=True, kw_only=True, slots=True)
class Frozen:
    """How many channels of what produces them one operator keeps, and why."""

    node: str
    op_type: str
    reason: str
    channels: int


class Coupling:
    """The labels of a graph and the groups in which they leave.

    `group` gives the number of the group of each label. A group is frozen when a freeze names one of its labels, when
    it holds every label of some axis, or when one of its channels has no initializer that makes it.
    """

    def __init__(self, graph: TraceGraph, rules: Sequence[Rule | None]) -> None:
        self.graph = graph
        self.book = _propagate(graph, rules)
        self.group, self.count = _components(self.book)

    def labels_of_group(self, groups: Ids) -> Ids:
        """All labels of the given groups."""
        return np.flatnonzero(np.isin(self.group, groups))

    @cached_property
    def _axis_of_label(self) -> NDArray[np.int64]:
        axes = list(self.book.axes.values())
        return np.repeat(np.arange(len(axes)), [axis.length for axis in axes])

    def axes_of(self, labels: Ids) -> list[tuple[str, int, Kind, tuple[int, ...]]]:
        """The (owner, axis, kind, indices) that the labels stand for."""
        axes = list(self.book.axes.values())
        numbers = self._axis_of_label[labels]
        return [
            (axes[n].owner, axes[n].axis, axes[n].kind, tuple(int(i) for i in labels[numbers == n] - axes[n].start))
            for n in np.unique(numbers)
        ]

    @cached_property
    def frozen_groups(self) -> NDArray[np.bool_]:
        """Which groups may not leave by themselves."""
        frozen = np.zeros(self.count, bool)
        for freeze in self.book.freezes:
            frozen[self.group[freeze.labels]] = True
        for axis in self.book.axes.values():
            groups = self.group[axis.start : axis.start + axis.length]
            if Kind.SOURCE in axis.kind:
                frozen[groups] = True
            elif (groups == groups[:1]).all():
                frozen[groups[:1]] = True
        return frozen

    @cached_property
    def _produced(self) -> NDArray[np.int64]:
        rows = [np.arange(a.start, a.start + a.length) for a in self.book.axes.values() if Kind.PRODUCED in a.kind]
        return np.concatenate(rows) if rows else np.zeros(0, np.int64)

    def channel_groups(self) -> tuple[int, int]:
        """How many groups of produced channels there are, and how many of them are free to leave."""
        groups = np.unique(self.group[self._produced])
        return len(groups), int((~self.frozen_groups[groups]).sum())

    def frozen(self) -> tuple[Frozen, ...]:
        """What keeps channels, by operator: the channel groups that each freeze holds directly."""
        produced = np.zeros(self.count, bool)
        produced[self.group[self._produced]] = True
        found: dict[tuple[int, str], set[int]] = {}
        for freeze in self.book.freezes:
            groups = np.unique(self.group[freeze.labels])
            found.setdefault((freeze.node, freeze.reason), set()).update(int(g) for g in groups[produced[groups]])
        return tuple(
            Frozen(node=self._name(node), op_type=self._op_type(node), reason=reason, channels=len(groups))
            for (node, reason), groups in found.items()
            if groups
        )

    def _name(self, node: int) -> str:
        return self.graph.nodes[node].name if node >= 0 else ""

    def _op_type(self, node: int) -> str:
        return self.graph.nodes[node].op_type if node >= 0 else ""


def _propagate(graph: TraceGraph, rules: Sequence[Rule | None]) -> LabelBook:
    book = LabelBook(graph)
    for index, rule in enumerate(rules):
        flow = LabelFlow(book, index)
        if rule is None:
            flow.freeze_inputs(f"unknown operator {graph.nodes[index].op_type}")
        else:
            rule.labels(flow)
    for names, reason in ((graph.outputs, "graph output"), (graph.captured, "read by a subgraph")):
        for name in names:
            if name in book.tensors:
                book.freeze(book.tensors[name].ids.reshape(-1), -1, f"{reason} {name}")
    return book


def _components(book: LabelBook) -> tuple[Ids, int]:
    if not book.ties:
        return np.arange(book.count), book.count
    first = np.concatenate([tie[0] for tie in book.ties])
    second = np.concatenate([tie[1] for tie in book.ties])
    matrix = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(book.count, book.count))
    count, group = connected_components(matrix, directed=False)
    return group.astype(np.int64), int(count)
