"""Boxes that fold: a network of any size as a tree of which every level can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

MOST = 64
"""The most that a box shows when it is unfolded; where there is more, parts of it are boxes of their own."""
_PART = (16, 48)
"""The least and the most that such a part holds."""

Kind = Literal["network", "structure", "sequence", "part"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What the folding needs of a network: its operators are numbered in topological order.

    `sources` are the operators that each one reads from. `constant` operators depend on no graph input. `structure` is
    the innermost structure that an operator lies in, `family` the channels that it makes, -1 for none. What is `alone`
    is in no sequence with others.
    """

    sources: Sequence[Sequence[int]]
    constant: Sequence[bool]
    structure: Sequence[int]
    family: Sequence[int]
    alone: Sequence[bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Operators and boxes that are drawn as one when folded, in topological order.

    A number below the number of operators is an operator, the others are boxes in the order of the tree.
    """

    kind: Kind
    children: tuple[int, ...]
    structure: int = -1


def fold(flow: Flow, parents: Sequence[int], exits: Sequence[int]) -> list[Box]:
    """The boxes of a network, inner before outer; the last one is the whole network.

    `parents` are the structures that structures lie in, -1 for none, and `exits` the operators that end them. A
    structure without operators gets no box.

    Every box is convex, and with any choice of boxes folded the network has no cycle: a structure is left only by its
    last operator, a sequence is entered only by its first, and a part is an interval of a topological order of what it
    is a part of.
    """
    return _Folding(flow, parents, exits).boxes


@dataclass(slots=True)
class _Folding:
    flow: Flow
    parents: Sequence[int]
    exits: Sequence[int]
    boxes: list[Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        inside: dict[int, list[tuple[tuple[bool, int], int]]] = {}
        for first, members in sequences(self.flow).items():
            number = members[0] if len(members) == 1 else self._add("sequence", members)
            inside.setdefault(self.flow.structure[first], []).append(((not self.flow.constant[first], first), number))
        for structure in self._inner_first():
            units = [number for _, number in sorted(inside.pop(structure, ()))]
            if not units:
                continue  # one of several outputs of an operator: nothing is dead without it
            box = self._add("structure", units, structure)
            inside.setdefault(self.parents[structure], []).append(((True, self.exits[structure]), box))
        self._add("network", [number for _, number in sorted(inside.pop(-1, ()))])

    def _inner_first(self) -> list[int]:
        """The structures, each after all that lie in it: one that encloses another ends behind it."""
        return sorted(range(len(self.parents)), key=lambda s: self.exits[s])

    def _add(self, kind: Kind, units: Sequence[int], structure: int = -1) -> int:
        """A new box, with parts between it and its units where they are too many."""
        if len(units) > MOST:
            crossings = self._crossings(units)
            while len(units) > MOST:
                ends = quiet_cuts(crossings, *_PART)
                starts = [0, *ends[:-1]]
                units = [self._append("part", units[a:b]) for a, b in zip(starts, ends, strict=True)]
                crossings = [crossings[at - 1] for at in ends]
        return self._append(kind, units, structure)

    def _append(self, kind: Kind, units: Sequence[int], structure: int = -1) -> int:
        self.boxes.append(Box(kind=kind, children=tuple(units), structure=structure))
        return len(self.flow.sources) + len(self.boxes) - 1

    def _crossings(self, units: Sequence[int]) -> list[int]:
        """How many edges among these units pass from before to behind each one's end."""
        place: dict[int, int] = {}
        for at, unit in enumerate(units):
            stack = [unit]
            while stack:
                number = stack.pop()
                if number < len(self.flow.sources):
                    place[number] = at
                else:
                    stack += self.boxes[number - len(self.flow.sources)].children
        change = [0] * (len(units) + 1)
        for operator, at in place.items():
            for source in self.flow.sources[operator]:
                if source in place:
                    change[place[source]] += 1
                    change[at] -= 1
        found, passing = [], 0
        for step in change[:-1]:
            passing += step
            found.append(passing)
        return found


def sequences(flow: Flow) -> dict[int, list[int]]:
    """The operators that no structure and no family separates, by the first of each sequence, in topological order.

    An operator continues the sequence that all its inputs come from, unless it makes channels of another family. One
    that depends on no graph input goes with its readers.
    """
    head = list(range(len(flow.sources)))
    family = list(flow.family)
    for operator, sources in enumerate(flow.sources):
        heads = {head[s] for s in sources if not flow.constant[s]}
        if flow.constant[operator] or len(heads) != 1:
            continue
        first = heads.pop()
        if _may_join(flow, operator, first) and family[operator] in (-1, family[first]):
            head[operator] = first
    readers: list[set[int]] = [set() for _ in flow.sources]
    for operator in reversed(range(len(flow.sources))):
        heads = readers[operator]
        if flow.constant[operator] and len(heads) == 1:
            first = next(iter(heads))
            if _may_join(flow, operator, first):
                head[operator] = first
        for source in flow.sources[operator]:
            readers[source].add(head[operator])
    found: dict[int, list[int]] = {}
    for operator, first in enumerate(head):
        found.setdefault(first, []).append(operator)
    return found


def _may_join(flow: Flow, operator: int, first: int) -> bool:
    return flow.structure[operator] == flow.structure[first] and not (flow.alone[operator] or flow.alone[first])


def quiet_cuts(crossings: Sequence[int], least: int, most: int) -> list[int]:
    """Where to end parts of at least so many and at most so many items: where the fewest edges cross, late if equal."""
    ends: list[int] = []
    start, count = 0, len(crossings)
    while count - start > most:
        latest = min(start + most, count - least)
        end = min(range(start + least, latest + 1), key=lambda at: (crossings[at - 1], -at))
        ends.append(end)
        start = end
    return [*ends, count]
