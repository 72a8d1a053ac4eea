"""The channel groups that may leave, as arrays: which group each index of each initializer axis belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule, dequantised, zero_of
from onnx_asgnas.operators.labelled import Ids, Kind, LabelledAxis
from onnx_asgnas.space.coupling import Coupling
from onnx_asgnas.space.structures import Group, Slice

Mask = NDArray[np.bool_]


class Channels:
    """The free channel groups of a network: `count` of them, by number.

    `number` gives the group of each label, -1 for labels that stay. Only groups of which some operator produces the
    channels count, and none that `protected` nodes give.
    """

    def __init__(self, coupling: Coupling, protected: Iterable[str] = ()) -> None:
        self.coupling = coupling
        stays = coupling.frozen_groups.copy()
        self.protected = _labels_around(coupling, frozenset(protected))
        stays[coupling.group[self.protected]] = True
        free = coupling.produced_groups & ~stays
        numbers = np.where(free, np.cumsum(free) - 1, -1)
        self.count = int(free.sum())
        self.number: Ids = numbers[coupling.group] if len(coupling.group) else np.zeros(0, np.int64)

    @property
    def graph(self) -> TraceGraph:
        """The network."""
        return self.coupling.graph

    @property
    def _rules(self) -> Sequence[Rule | None]:
        return self.coupling.rules

    @cached_property
    def axes(self) -> list[LabelledAxis]:
        """The initializer axes on which some free group has slices."""
        axes = list(self.coupling.book.axes.values())
        if not axes:
            return []
        highest = np.maximum.reduceat(self.number, [axis.start for axis in axes]).tolist()
        found = zip(axes, highest, strict=True)
        return [axis for axis, number in found if number >= 0 and axis.kind is not Kind.SOURCE]

    def numbers_on(self, axis: LabelledAxis) -> Ids:
        """The group of each index of an axis."""
        return self.number[axis.start : axis.start + axis.length]

    def labels(self, chosen: Mask) -> Mask:
        """Which labels leave with these groups, bool [labels]."""
        return np.append(chosen, False)[self.number]

    @cached_property
    def segments(self) -> tuple[Ids, Ids]:
        """The labels of each tensor that must keep one, in a row, and where each tensor begins."""
        return self.coupling.grouping.segments

    @cached_property
    def family_of(self) -> Ids:
        """The family of each group: groups of one producing axis, and of those that share a group with it."""
        produced = [axis for axis in self.axes if Kind.PRODUCED in axis.kind]
        if not produced:
            return np.zeros(0, np.int64)
        lengths = [axis.length for axis in produced]
        numbers = np.concatenate([self.numbers_on(axis) for axis in produced])
        first = np.maximum.reduceat(numbers, np.cumsum([0, *lengths[:-1]])).repeat(lengths)
        free = numbers >= 0
        edges = first[free], numbers[free]
        matrix = csr_array((np.ones(len(edges[0]), np.int8), edges), shape=(self.count, self.count))
        family: Ids = connected_components(matrix, directed=False)[1].astype(np.int64)
        return family

    @cached_property
    def width(self) -> Ids:
        """How many indices of its widest producing axis each group takes: one, or as many as a head has."""
        width = np.ones(self.count, np.int64)
        for axis in self.axes:
            if Kind.PRODUCED in axis.kind:
                numbers = self.numbers_on(axis)
                width = np.maximum(width, np.bincount(numbers[numbers >= 0], minlength=self.count))
        return width

    def norms_squared(self, graph: TraceGraph) -> tuple[NDArray[np.float64], Ids]:
        """‖x_g‖² of the zeroed variables of each group in the weights of a model, and how many these are."""
        sums, sizes = np.zeros(self.count), np.zeros(self.count, np.int64)
        for axis in self.axes:
            if not axis.zeroed:
                continue
            numbers = self.numbers_on(axis)
            values = dequantised(graph, self._rules, axis.owner)
            here = numbers >= 0
            sums += np.bincount(numbers[here], _squares_along(values, axis.axis)[here], minlength=self.count)
            sizes += np.bincount(numbers[here], minlength=self.count) * (values.size // axis.length)
        return sums, sizes

    def at_zero(self, graph: TraceGraph) -> Mask:
        """Which groups are exactly zero in the weights of a model."""
        alive = np.zeros(self.count + 1, bool)
        for whole in (False, True):  # a glance at one number of each slice settles nearly all of them
            for axis in self.axes:
                numbers = self.numbers_on(axis)
                if axis.zeroed and not alive[numbers[numbers >= 0]].all():
                    zero, values = zero_of(graph, self._rules, axis.owner), graph.array(axis.owner)
                    part = tuple(slice(None) if whole or a == axis.axis else slice(1) for a in range(values.ndim))
                    others = tuple(a for a in range(values.ndim) if a != axis.axis)
                    alive[numbers[(values[part] != zero[part]).any(axis=others)]] = True
        return ~alive[:-1]

    def zero_of(self, name: str) -> NDArray[np.generic]:
        """What stands for zero in an initializer, of its shape: the zero points, where it is quantised."""
        return zero_of(self.graph, self._rules, name)

    def groups(self) -> tuple[Group, ...]:
        """Each group's zeroed slices; named after the first of them."""
        slices: defaultdict[int, list[Slice]] = defaultdict(list)
        for axis in self.axes:
            if axis.zeroed:
                numbers = self.numbers_on(axis)
                order = np.argsort(numbers, kind="stable")
                order = order[numbers[order] >= 0]
                found, first = np.unique(numbers[order], return_index=True)
                for number, indices in zip(found.tolist(), np.split(order, first[1:]), strict=True):
                    slices[number].append(
                        Slice(initializer=axis.owner, axis=axis.axis, indices=tuple(indices.tolist()))
                    )
        return tuple(
            Group(
                name=f"{slices[g][0].initializer}[{slices[g][0].axis}:{slices[g][0].indices[0]}]",
                slices=tuple(slices[g]),
            )
            for g in range(self.count)
        )


def _squares_along(values: NDArray[np.generic], axis: int) -> NDArray[np.float64]:
    """The sum of squares at each index of an axis, without a copy of the values."""
    wide: NDArray[Any] = values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
    letters = "abcdefghijklmnop"[: values.ndim]
    squares: NDArray[np.float64] = np.einsum(f"{letters},{letters}->{letters[axis]}", wide, wide).astype(np.float64)
    return squares


def _labels_around(coupling: Coupling, names: frozenset[str]) -> Ids:
    """The labels of what these nodes give, and of the initializers that they read."""
    graph, found = coupling.graph, [np.zeros(0, np.int64)]
    if not names:
        return found[0]
    for node in graph.nodes:
        if node.name not in names:
            continue
        for name in node.output:
            if name in coupling.book.tensors:
                found.append(coupling.book.tensors[name].ids.reshape(-1))
        for name in node.input:
            for axis in range(len(graph.initializers[name].dims) if name in graph.initializers else 0):
                if (name, axis) in coupling.book.axes and Kind.CUT not in coupling.book.axes[name, axis].kind:
                    found.append(coupling.book.axes[name, axis].labels)
    labels = np.concatenate(found)
    return labels[labels >= 0]
