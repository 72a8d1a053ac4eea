"""Channel groups: labels flow through the whole graph, and what is tied leaves together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule
from onnx_asgnas.operators.labels import Freeze, Ids, Kind, LabelBook, LabelFlow, LabelledAxis, SizeSlot

Item = TypeVar("Item")


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

    def labels_at(self, owner: str, axis: int, indices: Sequence[int]) -> Ids:
        """The labels of some indices of an axis that has labels."""
        return self.book.axes[owner, axis].start + np.array(indices, np.int64)

    def closure(self, labels: Ids) -> Ids:
        """All labels that leave with these, in order."""
        order, ends = self._by_group
        parts = [order[ends[group] : ends[group + 1]] for group in np.unique(self.group[labels])]
        return np.sort(np.concatenate(parts))

    @cached_property
    def _by_group(self) -> tuple[Ids, Ids]:
        """The labels group by group, and where each group begins."""
        return np.argsort(self.group, kind="stable"), np.concatenate([[0], np.bincount(self.group).cumsum()])

    @cached_property
    def _axes(self) -> tuple[list[LabelledAxis], Ids]:
        """All labelled axes, and the number of the axis of each label."""
        axes = list(self.book.axes.values())
        return axes, np.repeat(np.arange(len(axes)), [axis.length for axis in axes])

    def axes_of(self, labels: Ids) -> list[tuple[str, int, Kind, tuple[int, ...]]]:
        """The (owner, axis, kind, indices) that labels, given in order, stand for."""
        axes, number = self._axes
        numbers, first = np.unique(number[labels], return_index=True)
        found = [axes[n] for n in numbers]
        return [
            (axis.owner, axis.axis, axis.kind, tuple((part - axis.start).tolist()))
            for axis, part in zip(found, np.split(labels, first[1:]), strict=True)
        ]

    def freezes_among(self, labels: Ids) -> list[Freeze]:
        """The freezes that name a label of the groups of these labels."""
        return list(_gather(self._freezes_by_group, self.group[labels]))

    def sizes_among(self, labels: Ids) -> list[SizeSlot]:
        """The size slots that count a label of the groups of these labels."""
        return list(_gather(self._sizes_by_group, self.group[labels]))

    @cached_property
    def _freezes_by_group(self) -> dict[int, list[Freeze]]:
        return self._spread((freeze, freeze.labels) for freeze in self.book.freezes)

    @cached_property
    def _sizes_by_group(self) -> dict[int, list[SizeSlot]]:
        return self._spread((slot, slot.labels) for slot in self.book.sizes)

    def _spread(self, items: Iterable[tuple[Item, Ids]]) -> dict[int, list[Item]]:
        found: defaultdict[int, list[Item]] = defaultdict(list)
        for item, labels in items:
            for group in np.unique(self.group[labels[labels >= 0]]).tolist():
                found[group].append(item)
        return found

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
    book.freeze_what_others_read()
    for names, reason in ((graph.outputs, "graph output"), (graph.captured, "read by a subgraph")):
        for name in names:
            if name in book.tensors:
                book.freeze(book.tensors[name].ids.reshape(-1), -1, f"{reason} {name}")
    return book


def _gather(by_group: Mapping[int, Sequence[Item]], groups: Ids) -> Iterable[Item]:
    """The items of these groups, each once."""
    return {id(item): item for group in np.unique(groups).tolist() for item in by_group.get(group, ())}.values()


def _components(book: LabelBook) -> tuple[Ids, int]:
    if not book.ties:
        return np.arange(book.count), book.count
    first = np.concatenate([tie[0] for tie in book.ties])
    second = np.concatenate([tie[1] for tie in book.ties])
    matrix = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(book.count, book.count))
    count, group = connected_components(matrix, directed=False)
    return group.astype(np.int64), int(count)
