"""From ties to groups: connected components, which of them stay, and rectangles of which whole rows leave."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from onnx_asgnas.operators.labelled import Ids, Kind, slabs
from onnx_asgnas.operators.labels import Freeze, LabelBook

_ROUNDS = 8
"""How often rectangles are looked at again after others were settled; what is still open then stays."""


class Grouping:
    """The groups in which the labels of a book leave, given its ties and freezes.

    `group` is the number of the group of each label, `count` how many there are, `frozen` which of them stay.
    """

    def __init__(self, book: LabelBook) -> None:
        self.book = book
        self.group, self.count = _components(book)
        self.frozen = self._frozen()

    def _frozen(self) -> NDArray[np.bool_]:
        frozen = np.zeros(self.count, bool)
        if self.book.freezes:
            frozen[self.group[np.concatenate([freeze.labels for freeze in self.book.freezes])]] = True
        for axis in self.book.axes.values():
            if axis.kind is Kind.SOURCE:
                frozen[self.group[axis.start : axis.start + axis.length]] = True
        labels, starts = self.segments
        if len(starts):
            groups = np.concatenate([self.group, self.group[labels[len(self.group) :]]])  # every label stands first
            lowest, highest = np.minimum.reduceat(groups, starts), np.maximum.reduceat(groups, starts)
            frozen[lowest[lowest == highest]] = True
        return frozen

    @cached_property
    def segments(self) -> tuple[Ids, Ids]:
        """The labels of every tensor that only labels keep from being empty, one after another, and where each begins.

        At least one label of each has to stay. Those of the axes come first, in their order.
        """
        found: dict[tuple[int, bytes], Ids] = {}
        seen: set[int] = set()
        for labelled in self.book.tensors.values():
            if labelled.vector is None and id(labelled.ids) not in seen:
                seen.add(id(labelled.ids))
                flat = np.ascontiguousarray(labelled.ids).reshape(-1)
                if flat.size and flat.min() >= 0:
                    found.setdefault((flat.size, flat.tobytes()), flat)
        every = np.arange(self.book.count, dtype=np.int64)
        lengths = np.array([len(part) for part in found.values()], np.int64)
        starts = [axis.start for axis in self.book.axes.values()]
        return (
            np.concatenate([every, *found.values()]),
            np.concatenate([np.array(starts, np.int64), len(every) + np.cumsum(lengths) - lengths]),
        )

    @cached_property
    def rectangles(self) -> list[tuple[str, Ids]]:
        """The label arrays that vary along several axes, each once however it is turned, with a tensor that has it."""
        found: dict[tuple[tuple[int, ...], bytes], tuple[str, Ids]] = {}
        for name, labelled in self.book.tensors.items():
            if labelled.vector is None and len(labelled.long) > 1:
                squeezed = _unturned(labelled.ids.reshape([n for n in labelled.ids.shape if n > 1]))
                found.setdefault((squeezed.shape, squeezed.tobytes()), (name, squeezed))
        return list(found.values())


def _unturned(ids: Ids) -> Ids:
    """The same array with its axes in the order in which the labels were numbered."""
    steps = [abs(int(ids.take(1, axis).flat[0] - ids.flat[0])) for axis in range(ids.ndim)]
    return np.ascontiguousarray(ids.transpose(sorted(range(ids.ndim), key=lambda axis: -steps[axis])))


def settle(book: LabelBook) -> Grouping:
    """The groups of a book; of a tensor whose labels vary along several axes, whole rows or whole columns leave.

    Most are settled by the ties of what follows. For the rest the axis that leaves more free groups is chosen and what
    lies along the others is tied.
    """
    grouping = Grouping(book)
    rectangles = grouping.rectangles
    for _ in range(_ROUNDS):
        unsettled = [(name, ids) for name, ids in rectangles if not _is_settled(grouping, ids)]
        if not unsettled:
            return grouping
        for _, ids in unsettled:
            axis = max(range(ids.ndim), key=lambda a: _free_along(grouping, ids, a))
            table = slabs(ids, axis)
            _tie_rows(book, table)
        grouping = Grouping(book)
    for name, ids in rectangles:
        if not _is_settled(grouping, ids):
            flat = ids[ids >= 0]
            book.freezes.append(
                Freeze(np.unique(flat), book.graph.producer.get(name, -1), "neither rows nor columns of it leave alone")
            )
    return Grouping(book)


def _is_settled(grouping: Grouping, ids: Ids) -> bool:
    """Do along some axis whole slabs leave together or stay."""
    groups = np.where(ids >= 0, grouping.group[ids], -1)
    stays = (ids < 0) | grouping.frozen[groups]
    if stays.all():
        return True
    for axis in range(ids.ndim):
        table = slabs(groups, axis)
        kept = slabs(stays, axis)
        if ((table == table[:, :1]).all(1) | kept.all(1)).all():
            return True
    return False


def _free_along(grouping: Grouping, ids: Ids, axis: int) -> int:
    """How many free groups are left if the slabs along an axis leave as wholes."""
    table = slabs(ids, axis)
    groups = np.where(table >= 0, grouping.group[table], -1)
    stays = ((table < 0) | grouping.frozen[groups]).any(1)
    rows = np.repeat(np.arange(len(table)), table.shape[1])
    known = groups.reshape(-1) >= 0
    numbers, compact = np.unique(groups.reshape(-1)[known], return_inverse=True)
    size = len(table) + len(numbers)
    matrix = coo_array((np.ones(int(known.sum()), np.int8), (rows[known], compact + len(table))), shape=(size, size))
    count, parts = connected_components(matrix, directed=False)
    stuck = np.zeros(count, bool)
    stuck[parts[: len(table)][stays]] = True
    free = np.unique(parts[: len(table)])
    free = free[~stuck[free]]
    return len(free) if len(np.unique(parts[: len(table)])) > 1 else 0


def _tie_rows(book: LabelBook, table: Ids) -> None:
    first = np.broadcast_to(table[:, :1], table.shape)
    both = (first >= 0) & (table >= 0)
    book.ties.append((first[both], table[both]))
    broken = (table < 0).any(1)
    left = table[broken]
    if (left >= 0).any():
        book.freezes.append(Freeze(np.unique(left[left >= 0]), -1, "a part of a row that stays"))


def _components(book: LabelBook) -> tuple[Ids, int]:
    """The group of each label. Axes tied as wholes are one to begin with, so that few labels are left to be joined."""
    first_of = _first_of_axes(book)
    every = np.arange(book.count, dtype=np.int32)
    same = every + first_of  # the label of the first axis of each class at the same place
    place = np.cumsum(same == every, dtype=np.int32)
    place -= 1
    number, count = place[same], int(place[-1]) + 1 if len(place) else 0
    if book.ties:
        one, two = (number[np.concatenate([tie[at] for tie in book.ties])] for at in (0, 1))
        matrix = csr_array((np.ones(len(one), np.int8), (one, two)), shape=(count, count))
        count, group = connected_components(matrix, directed=False)
        number = group[number]
    return number.astype(np.int64), int(count)


def _first_of_axes(book: LabelBook) -> NDArray[np.int32]:
    """For each label how far away, at the same place, the label of the first axis tied to its own is."""
    parent: dict[int, int] = {}

    def root(start: int) -> int:
        while (above := parent.get(start, start)) != start:
            parent[start] = parent.get(above, above)
            start = above
        return start

    for one, two in book.axis_ties:
        a, b = root(one.start), root(two.start)
        parent[max(a, b)] = min(a, b)
    axes = list(book.axes.values())
    shifts = np.array([root(axis.start) - axis.start for axis in axes], np.int32)
    return np.repeat(shifts, [axis.length for axis in axes])
