"""Channel groups: labels flow through the whole graph, and what is tied leaves together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule
from onnx_asgnas.operators.labelled import Ids, Kind, LabelledAxis
from onnx_asgnas.operators.labels import Freeze, LabelBook, LabelFlow
from onnx_asgnas.operators.lengths import follow_lengths
from onnx_asgnas.space.grouping import Grouping, settle

Item = TypeVar("Item")

_PASSES = 4
"""How often labels are sent through the graph again without those that stay and were in the way of others."""


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

    def __init__(
        self, graph: TraceGraph, rules: Sequence[Rule | None], grouping: Grouping, before: Coupling | None = None
    ) -> None:
        self.graph, self.rules, self.book = graph, rules, grouping.book
        self.grouping, self.before = grouping, before
        self.group, self.count = grouping.group, grouping.count
        self.frozen_groups = grouping.frozen

    @classmethod
    def of(cls, graph: TraceGraph, rules: Sequence[Rule | None], *, sources: bool = True) -> Coupling:
        """Send labels through a graph and group them.

        Axes that stay as a whole are taken out and the labels sent again, where they were in the way of others
        (`LabelBook.conflict`). `sources` gives channels that have no label one where a Concat could drop them.
        """
        ignored: frozenset[tuple[str, int]] = frozenset()
        found: Coupling | None = None
        for _ in range(_PASSES):
            found = cls(graph, rules, settle(_propagate(graph, rules, ignored, sources)), found)
            more = found._axes_that_stay() if found.book.conflict else frozenset()
            if more <= ignored:
                break
            ignored |= more
        assert found is not None
        return found

    def _axes_that_stay(self) -> frozenset[tuple[str, int]]:
        """The axes of which freezes name every label: not those that are only tied to one.

        Of what only a removed structure can take along one label that stays is enough: then it cannot take any.
        """
        named = np.zeros(self.book.count, bool)
        for freeze in self.book.freezes:
            named[freeze.labels] = True
        stays = np.zeros(self.count, bool)
        stays[self.group[named]] = True
        found = []
        for key, axis in self.book.axes.items():
            part = slice(axis.start, axis.start + axis.length)
            source = axis.kind is Kind.SOURCE
            if (source and stays[self.group[part]].any()) or (not source and named[part].all()):
                found.append(key)
        return frozenset(found)

    def operand_labels(self, node: int, axis: int, tensor: str) -> Ids | None:
        """The labels of a tensor's places in the output of a Concat; None where one of them has no label."""
        proto = self.graph.nodes[node]
        written = self.book.tensors.get(proto.output[0])
        sizes = [self.graph.size(name) for name in proto.input]
        if written is None or any(size is None for size in sizes) or any(a != axis for a in written.long):
            return None
        lengths = [size[axis] for size in sizes if size is not None]
        parts = np.split(written.ids.reshape(-1), np.cumsum(lengths[:-1]))
        found = np.concatenate([part for name, part in zip(proto.input, parts, strict=True) if name == tensor])
        return found if (found >= 0).all() else None

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

    @cached_property
    def _freezes_by_group(self) -> dict[int, list[Freeze]]:
        return self._spread((freeze, freeze.labels) for freeze in self.book.freezes)

    def _spread(self, items: Iterable[tuple[Item, Ids]]) -> dict[int, list[Item]]:
        found: defaultdict[int, list[Item]] = defaultdict(list)
        for item, labels in items:
            for group in np.unique(self.group[labels[labels >= 0]]).tolist():
                found[group].append(item)
        return found

    def channel_groups(self) -> tuple[int, int]:
        """How many groups of produced channels there are, and how many of them are free to leave."""
        total = int(self.produced_groups.sum())
        free = int((self.produced_groups & ~self.frozen_groups).sum())
        return total if self.before is None else max(total, self.before.channel_groups()[0]), free

    @cached_property
    def produced_groups(self) -> NDArray[np.bool_]:
        """Which groups hold a label of what makes channels."""
        found = np.zeros(self.count, bool)
        for axis in self.book.axes.values():
            if Kind.PRODUCED in axis.kind:
                found[self.group[axis.start : axis.start + axis.length]] = True
        return found

    def frozen(self) -> tuple[Frozen, ...]:
        """What keeps channels, by operator: the channel groups that each freeze holds directly."""
        return tuple(
            Frozen(node=self._name(node), op_type=self._op_type(node), reason=reason, channels=count)
            for (node, reason), count in self._frozen_counts.items()
        )

    @cached_property
    def _frozen_counts(self) -> dict[tuple[int, str], int]:
        """Channel groups by (node, reason) of what freezes them; those of earlier passes count there only."""
        found: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
        known = self._frozen_before
        for freeze in self.book.freezes:
            groups = np.unique(self.group[freeze.labels[~known[freeze.labels]]])
            found[freeze.node, freeze.reason].update(groups[self.produced_groups[groups]].tolist())
        earlier = {} if self.before is None else self.before._frozen_counts
        return earlier | {key: len(groups) for key, groups in found.items() if groups}

    @cached_property
    def _frozen_before(self) -> NDArray[np.bool_]:
        """Which labels stay for a reason that an earlier pass has told."""
        known = np.zeros(self.book.count, bool)
        before = self.before
        while before is not None:
            for key, axis in self.book.axes.items():
                old = before.book.axes.get(key)
                if old is not None:
                    stays = before.frozen_groups[before.group[old.start : old.start + old.length]]
                    known[axis.start : axis.start + axis.length] |= stays
            before = before.before
        return known

    def _name(self, node: int) -> str:
        return self.graph.nodes[node].name if node >= 0 else ""

    def _op_type(self, node: int) -> str:
        return self.graph.nodes[node].op_type if node >= 0 else ""


def _propagate(
    graph: TraceGraph, rules: Sequence[Rule | None], ignored: frozenset[tuple[str, int]], sources: bool
) -> LabelBook:
    book = LabelBook(graph, rules, ignored, sources=sources)
    for index, rule in enumerate(rules):
        if graph.activations.isdisjoint(graph.reads[index]):
            continue  # weights are followed back from where they are read
        flow = LabelFlow(book, index)
        notes = book.notes
        if rule is None:
            flow.freeze_inputs(f"unknown operator {graph.nodes[index].op_type}")
            continue
        rule.labels(flow)
        if book.lengths:
            follow_lengths(flow)
        settled = notes != book.notes or rule.shape_only or flow.sums
        _keep_what_is_lost(flow, settled=settled)
    book.freeze_what_others_read()
    for names, reason in ((graph.outputs, "graph output"), (graph.captured, "read by a subgraph")):
        for name in names:
            if name in book.tensors:
                book.freeze(book.tensors[name].ids, -1, f"{reason} {name}")
            for entry in book.lengths.get(name, ()):
                if entry is not None:
                    book.freeze(entry, -1, f"{reason} {name}")
    return book


def _keep_what_is_lost(flow: LabelFlow, *, settled: bool) -> None:
    """Labels stay that an operator neither passes on nor settles, or that not all of its outputs and inputs follow."""
    tensors, node, graph = flow.book.tensors, flow.node, flow.book.graph
    for position, name in enumerate(node.input):
        if name in tensors and position not in flow.taken:
            flow.freeze(tensors[name].ids, f"{node.op_type} reads them as its input {position}")
    if not flow.written and not settled:
        for name in graph.reads[flow.index]:
            if name in tensors:
                flow.freeze(tensors[name].ids, f"{node.op_type} does not say where its channels go")
    if len(node.output) == 1:
        return
    used = [at for at, name in enumerate(node.output) if name and (name in graph.consumers or graph.is_output(name))]
    if flow.written and not flow.written.issuperset(used):
        for at in flow.written:
            if node.output[at] in tensors:
                flow.freeze(tensors[node.output[at]].ids, f"another output of {node.op_type} has their length")


def _gather(by_group: Mapping[int, Sequence[Item]], groups: Ids) -> Iterable[Item]:
    """The items of these groups, each once."""
    return {id(item): item for group in np.unique(groups).tolist() for item in by_group.get(group, ())}.values()
