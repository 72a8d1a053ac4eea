"""Boxes that fold: a network of any size as a tree of which every level can be drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

MOST = 64
"""The most that a box shows when it is unfolded; where there is more, parts of it are boxes of their own."""
MOST_EDGES = 320
"""The most edges that it shows among what it holds: with more, a drawing says nothing and takes long to make."""
_DENSE = 4
"""With so many edges for each of its units a row is cut into smaller parts."""
_PART, _DENSE_PART = (16, 48), (6, 16)
"""The least and the most that such a part holds."""
_PARALLEL = 3
"""So many structures side by side, with the same before and the same behind them, are one box where it is crowded."""

Kind = Literal["network", "structure", "sequence", "parallel", "part"]

Edge = tuple[int, int]


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
    last operator, a sequence is entered only by its first, what is parallel has the same neighbours, and a part is an
    interval of a topological order of what it is a part of.
    """
    return _Folding(flow, parents, exits).boxes


@dataclass(slots=True)
class _Folding:
    flow: Flow
    parents: Sequence[int]
    exits: Sequence[int]
    boxes: list[Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What each structure holds: boxes and sequences with what orders them, operators that read no input first.
        inside: dict[int, list[tuple[bool, int, list[int]]]] = {}
        for first, members in sequences(self.flow).items():
            inside.setdefault(self.flow.structure[first], []).append((not self.flow.constant[first], first, members))
        for structure in self._inner_first():
            if structure in inside:  # else it is one of several outputs of an operator: nothing is dead without it
                box = self._add("structure", self._units(inside.pop(structure)), structure)
                inside.setdefault(self.parents[structure], []).append((True, self.exits[structure], [box]))
        self._add("network", self._units(inside.pop(-1, [])))

    def _units(self, held: list[tuple[bool, int, list[int]]]) -> list[int]:
        """What a structure shows: boxes and sequences in order, or the operators of its only sequence."""
        if len(held) == 1:
            return held[0][2]
        return [units[0] if len(units) == 1 else self._add("sequence", units) for _, _, units in sorted(held)]

    def _inner_first(self) -> list[int]:
        """The structures, each after all that lie in it: one that encloses another ends behind it."""
        return sorted(range(len(self.parents)), key=lambda s: self.exits[s])

    def _add(self, kind: Kind, units: Sequence[int], structure: int = -1) -> int:
        """A new box, with boxes between it and its units where they or their edges are too many."""
        if len(units) > _DENSE_PART[1]:
            edges = self._edges(units)
            if len(units) > MOST or len(edges) > MOST_EDGES:
                units = self._bundled(units, edges)
                edges = self._edges(units)
            units = self._parted(units, edges)
        return self._append(kind, units, structure)

    def _bundled(self, units: Sequence[int], edges: Iterable[Edge]) -> list[int]:
        """These units, with structures that lie parallel in boxes, each where its first one was."""
        before: list[list[int]] = [[] for _ in units]
        behind: list[list[int]] = [[] for _ in units]
        for source, target in edges:
            before[target].append(source)
            if source >= 0:
                behind[source].append(target)
        alike: dict[tuple[frozenset[int], frozenset[int]], list[int]] = {}
        for at, unit in enumerate(units):
            if self._kind(unit) == "structure":
                alike.setdefault((frozenset(before[at]), frozenset(behind[at])), []).append(at)
        found: list[int | None] = list(units)
        for places in alike.values():
            if _PARALLEL <= len(places) <= MOST and len(places) < len(units):
                found[places[0]] = self._append("parallel", [units[at] for at in places])
                for at in places[1:]:
                    found[at] = None
        return [unit for unit in found if unit is not None]

    def _parted(self, units: Sequence[int], edges: Collection[Edge]) -> Sequence[int]:
        """These units, or parts of them where they or their edges are too many."""
        crossings = _crossings(edges, len(units))
        size = _DENSE_PART if len(edges) > max(MOST_EDGES, _DENSE * len(units)) else _PART
        while len(units) > MOST or (size is _DENSE_PART and len(units) > size[1]):
            ends = quiet_cuts(crossings, *size)
            starts = [0, *ends[:-1]]
            units = [self._append("part", units[a:b]) for a, b in zip(starts, ends, strict=True)]
            crossings, size = [crossings[at - 1] for at in ends], _PART
        return units

    def _kind(self, number: int) -> Kind | None:
        at = number - len(self.flow.sources)
        return self.boxes[at].kind if at >= 0 else None

    def _append(self, kind: Kind, units: Sequence[int], structure: int = -1) -> int:
        self.boxes.append(Box(kind=kind, children=tuple(units), structure=structure))
        return len(self.flow.sources) + len(self.boxes) - 1

    def _edges(self, units: Sequence[int]) -> set[Edge]:
        """The pairs of places among these units between which tensors flow; from outside: a number below 0."""
        place: dict[int, int] = {}
        for at, unit in enumerate(units):
            stack = [unit]
            while stack:
                number = stack.pop()
                if number < len(self.flow.sources):
                    place[number] = at
                else:
                    stack += self.boxes[number - len(self.flow.sources)].children
        pairs = ((place.get(s, -1 - s), at) for operator, at in place.items() for s in self.flow.sources[operator])
        return {(source, at) for source, at in pairs if source != at}


def _crossings(edges: Iterable[tuple[int, int]], count: int) -> list[int]:
    """How many edges among so many places pass from each one, or from before it, to behind it."""
    change = [0] * count
    for source, target in edges:
        if source >= 0:
            change[source] += 1
            change[target] -= 1
    return list(accumulate(change))


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
