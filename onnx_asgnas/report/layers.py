"""Where the boxes of a small network stand in a picture: in layers from the inputs down, with few crossings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Edge = tuple[int, int]

_ROUNDS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The middle (across, layer) of every box, and the way of every edge: the places that it passes, ends included."""

    places: tuple[tuple[float, int], ...]
    ways: tuple[tuple[tuple[float, int], ...], ...]

    @property
    def width(self) -> float:
        """How far the places reach, from the first one's middle to the last one's."""
        return max((x for points in (self.places, *self.ways) for x, _ in points), default=0.0)

    @property
    def height(self) -> int:
        """The number of layers."""
        return 1 + max((layer for _, layer in self.places), default=0)


def in_layers(count: int, edges: Sequence[Edge]) -> Placed:
    """Place so many boxes, numbered in topological order, whose edges go from lower numbers to higher ones.

    Sugiyama's method: the longest way to a box is its layer, edges over several layers get a place in each, and the
    order in a layer follows the mean of the neighbours, up and down in turn.
    """
    layer = [0] * count
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        layer[target] = max(layer[target], layer[source] + 1)
    ways = []
    for source, target in edges:
        between = range(layer[source] + 1, layer[target])
        ways.append([source, *range(len(layer), len(layer) + len(between)), target])
        layer += between
    rows: list[list[int]] = [[] for _ in range(1 + max(layer, default=0))]
    for number, row in enumerate(layer):
        rows[row].append(number)
    pairs = [(a, b) for way in ways for a, b in pairwise(way)]
    across = _across(rows, len(layer), pairs)
    return Placed(
        places=tuple((across[number], layer[number]) for number in range(count)),
        ways=tuple(tuple((across[number], layer[number]) for number in way) for way in ways),
    )


def _across(rows: Sequence[list[int]], count: int, pairs: Sequence[Edge]) -> list[float]:
    """How far to the right each place is: at least one apart, near the mean of its neighbours, from 0 on."""
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs:
        below[a].append(b)
        above[b].append(a)
    across = [0.0] * count
    for row in rows:
        for at, number in enumerate(row):
            across[number] = float(at)
    for turn in range(_ROUNDS):
        down = turn % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            wanted = {n: _mean([across[m] for m in near[n]], across[n]) for n in row}
            row.sort(key=lambda n: (wanted[n], n))
            _settle(row, wanted, across)
    least = min(across, default=0.0)
    return [round(x - least, 3) for x in across]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _settle(row: Sequence[int], wanted: dict[int, float], across: list[float]) -> None:
    """Put a row where it wants to be, one apart; what is pushed to the right pulls the whole row back by half of it."""
    for at, number in enumerate(row):
        across[number] = wanted[number] if at == 0 else max(wanted[number], across[row[at - 1]] + 1)
    excess = _mean([across[n] - wanted[n] for n in row], 0.0)
    for number in row:
        across[number] -= excess
