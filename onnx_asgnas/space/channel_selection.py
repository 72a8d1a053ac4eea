"""Which channel groups to remove for a target: the most redundant first, and something stays everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.operators.labelled import Ids, Kind
from onnx_asgnas.space.channels import Channels, Mask

Redundancy = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Widths:
    """How many channels a layer keeps: a multiple of `round_to`, and at least `at_least`."""

    round_to: int = 1
    at_least: int = 1


class ChannelOrder:
    """Channel groups in the order in which they leave; any beginning of it leaves a network that works.

    Of every tensor the last channels in that order stay: at least one, of a layer's outputs at least `at_least`. What
    a layer keeps is rounded up to a multiple of `round_to`. `gone` are labels that have left already.
    """

    def __init__(self, channels: Channels, redundancy: Redundancy, widths: Widths, gone: Mask) -> None:
        self._channels, self._widths = channels, widths
        dead = _dead_groups(channels, gone)
        order = np.argsort(-redundancy, kind="stable")
        rank = np.empty(channels.count, np.int64)
        rank[order] = np.arange(channels.count)
        stays = self._last_of_each(rank, gone) | dead
        self.order: Ids = order[~stays[order]]
        self._families(rank, stays, dead)

    def __len__(self) -> int:
        return len(self.order)

    def first(self, count: int) -> Mask:
        """The groups that leave when the first `count` are asked for, bool [groups]."""
        chosen = np.zeros(self._channels.count, bool)
        chosen[self.order[:count]] = True
        return self._rounded(chosen)

    def of_each_family(self, fraction: float) -> Mask:
        """The groups that leave when this fraction of every family is asked for, bool [groups]."""
        wanted = np.floor(self._size * fraction + 1e-9)
        chosen = np.zeros(self._channels.count, bool)
        chosen[self.order[self._place[self.order] < wanted[self._channels.family_of[self.order]]]] = True
        return self._rounded(chosen)

    def fewest(self, enough: Callable[[Mask], bool]) -> Mask | None:
        """The shortest beginning that is enough, by bisection; None where all of it is not."""
        low, high = 0, len(self.order)
        if not enough(self.first(high)):
            return None
        while low < high:
            middle = (low + high) // 2
            if enough(self.first(middle)):
                high = middle
            else:
                low = middle + 1
        return self.first(low)

    def _families(self, rank: Ids, stays: Mask, dead: Mask) -> None:
        """The size of each family, and each group's place in the order of its family."""
        family, width = self._channels.family_of, self._channels.width
        count = int(family.max()) + 1 if len(family) else 0
        self._size = np.bincount(family[~dead], minlength=count).astype(np.float64)
        order = np.lexsort((rank, stays, family))
        starts = np.searchsorted(family[order], np.arange(count))
        self._place = np.empty(len(family), np.int64)
        self._place[order] = np.arange(len(family)) - starts[family[order]]
        unit = np.ones(count, np.int64)
        np.maximum.at(unit, family, width)
        self._unit = np.array([self._widths.round_to // gcd(self._widths.round_to, int(u)) for u in unit], np.int64)

    def _rounded(self, chosen: Mask) -> Mask:
        """With fewer of each family, so that what it keeps is a multiple of `round_to`."""
        if self._widths.round_to == 1 or not chosen.any():
            return chosen
        family = self._channels.family_of
        leaving = np.bincount(family[chosen], minlength=len(self._size))
        kept = self._size.astype(np.int64) - leaving
        kept = np.minimum(-(-kept // self._unit) * self._unit, self._size.astype(np.int64))
        fewer: Mask = chosen & (self._place < (self._size.astype(np.int64) - kept)[family])
        return fewer

    def _last_of_each(self, rank: Ids, gone: Mask) -> Mask:
        """The groups that leave last of each tensor, and of each layer's outputs as many as have to stay."""
        channels = self._channels
        stays = np.zeros(channels.count, bool)
        labels, starts = channels.segments
        if len(starts) and channels.count:
            numbers = np.where(gone[labels], -2, channels.number[labels])
            ranks = np.where(numbers >= 0, rank[np.maximum(numbers, 0)], np.where(numbers == -1, len(rank), -1))
            last = np.maximum.reduceat(ranks, starts)
            by_rank = np.argsort(rank)
            last = last[(last >= 0) & (last < len(rank))]
            stays[by_rank[last]] = True
        if self._widths.at_least > 1:
            for axis in channels.axes:
                if Kind.PRODUCED in axis.kind:
                    numbers = channels.numbers_on(axis)
                    free = numbers[(numbers >= 0) & ~gone[axis.start : axis.start + axis.length]]
                    fixed = int((numbers < 0).sum())
                    stays[free[np.argsort(-rank[free], kind="stable")][: max(self._widths.at_least - fixed, 0)]] = True
        return stays


def _dead_groups(channels: Channels, gone: Mask) -> Mask:
    """The groups of which every label has left already."""
    alive = np.zeros(channels.count + 1, bool)
    alive[channels.number[~gone]] = True
    return ~alive[:-1]
