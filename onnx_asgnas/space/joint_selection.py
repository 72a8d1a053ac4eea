"""Selection where channels may leave: channel groups alone (prune), or structures first and then channels (joint)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_asgnas.config import Target
from onnx_asgnas.errors import TargetError
from onnx_asgnas.space.channel_cost import ChannelCost
from onnx_asgnas.space.channel_selection import ChannelOrder, Redundancy, Widths
from onnx_asgnas.space.channels import Channels, Mask
from onnx_asgnas.space.cost import Cost
from onnx_asgnas.space.selection import Rank, Selection
from onnx_asgnas.space.structures import Structure
from onnx_asgnas.space.validity import RemovalState


@dataclass(frozen=True, kw_only=True)
class JointSelection:
    """Chooses among structures and channel groups, numbered one after the other.

    `labels_of` gives the labels that leave with a structure. In prune mode there are no structures, and no `state`.
    """

    state: RemovalState | None
    structures: Sequence[Structure]
    channels: Channels
    costs: ChannelCost
    full: Cost
    labels_of: Callable[[Sequence[int]], Mask]

    def choose(self, rank: Rank, target: Target, widths: Widths, *, by_gain: bool = False) -> Selection:
        """The groups to remove for a target; raises TargetError where it cannot be reached.

        With `by_gain` the redundancy of structures is minus a price, and they compare by price for what they save.
        """
        taken: list[int] = []
        if self.structures and self.state is not None:
            if target.uniform is not None or target.remove_groups is not None:
                raise TargetError(
                    "joint mode removes structures and channels, which no common number counts",
                    fix="Use keep_params or keep_macs; uniform and remove_groups work in mode prune.",
                )
            taken = self._take_structures(rank, target, self.state, by_gain=by_gain)
        gone = self.labels_of(self.state.erased if self.state is not None else ())
        redundancy = np.asarray(rank(tuple(taken)), np.float64)[len(self.structures) :]
        order = ChannelOrder(self.channels, redundancy, widths, gone)
        chosen = self._channels_for(target, order, gone)
        cost = self._cost(gone | self.channels.labels(chosen))
        selection = Selection(
            chosen=(*taken, *(np.flatnonzero(chosen) + len(self.structures)).tolist()),
            removed=0 if self.state is None else self.state.removed,
            kept_params=cost.params / max(self.full.params, 1),
            kept_macs=cost.macs / max(self.full.macs, 1),
            valid=self.state is None or self.state.valid,
            exact=True,
            dead=() if self.state is None else self.state.dead_initializers(),
        )
        if self.state is not None:
            for _ in taken:
                self.state.undo()
        return selection

    def least(self, widths: Widths | None = None) -> Cost:
        """What is left when every channel group leaves that can."""
        none = np.zeros(self.channels.coupling.book.count, bool)
        order = ChannelOrder(self.channels, np.zeros(self.channels.count), widths or Widths(), none)
        return self._cost(self.channels.labels(order.first(len(order))))

    def _cost(self, gone: Mask) -> Cost:
        if self.state is None:
            return self.costs.cost(gone)
        return self.costs.cost(gone, frozenset(self.state.dead_initializers()), self.state.computed)

    def _take_structures(self, rank: Rank, target: Target, state: RemovalState, *, by_gain: bool) -> list[int]:
        """The most redundant structures, one after another, as long as none overshoots the target."""
        enough, taken = self._goal(target), list[int]()
        left = set(range(len(self.structures)))
        while left and not enough(self._cost(self.labels_of(state.erased))):
            redundancy = np.array(rank(tuple(taken)), np.float64)
            if by_gain:
                self._divide_by_gain(redundancy, left, target, state)
            for index in sorted(left, key=lambda i: (-redundancy[i], i)):
                left.discard(index)
                if redundancy[index] == -np.inf:
                    continue  # it has a price and saves nothing
                if state.is_gone(self.structures[index].tensor) or not state.take(index):
                    continue
                if enough(self._cost(self.labels_of(state.erased))):
                    state.undo()  # channels take the last step, in smaller units
                    continue
                taken.append(index)
                break
        return taken

    def _divide_by_gain(self, redundancy: Redundancy, left: set[int], target: Target, state: RemovalState) -> None:
        """Make prices, which are below zero, those of each parameter or multiply-accumulate saved."""

        def amount() -> int:
            cost = self._cost(self.labels_of(state.erased))
            return cost.params if target.keep_params is not None else cost.macs

        before = amount()
        for index in left:
            if redundancy[index] < 0 and not state.is_gone(self.structures[index].tensor) and state.take(index):
                gain = before - amount()
                redundancy[index] = redundancy[index] / gain if gain > 0 else -np.inf
                state.undo()

    def _goal(self, target: Target) -> Callable[[Cost], bool]:
        if target.keep_params is not None:
            most = math.floor(self.full.params * target.keep_params + 1e-6)
            return lambda cost: cost.params <= most
        assert target.keep_macs is not None
        most_macs = math.floor(self.full.macs * target.keep_macs + 1e-6)
        return lambda cost: cost.macs <= most_macs

    def _channels_for(self, target: Target, order: ChannelOrder, gone: Mask) -> Mask:
        if target.uniform is not None:
            return order.of_each_family(target.uniform)
        if target.remove_groups is not None:
            total = self.channels.count
            fraction = isinstance(target.remove_groups, float) and target.remove_groups < 1
            wanted = max(1, round(target.remove_groups * total)) if fraction else int(target.remove_groups)
            chosen = order.fewest(lambda mask: int(mask.sum()) >= wanted)
            if chosen is None:
                most = int(order.first(len(order)).sum())
                raise TargetError(
                    f"{wanted} channel groups cannot be removed: at most {most} of {total} can go together",
                    fix=f"Ask for {most} or fewer.",
                    largest=most,
                )
            return chosen
        enough = self._goal(target)
        chosen = order.fewest(lambda mask: enough(self._cost(gone | self.channels.labels(mask))))
        if chosen is None:
            raise self._too_much(target, self._cost(gone | self.channels.labels(order.first(len(order)))))
        return chosen

    def _too_much(self, target: Target, least: Cost) -> TargetError:
        if not self.channels.count and not self.structures:
            return TargetError("this model has nothing to remove", fix="onnx-asgnas analyze MODEL --explain says why.")
        name, asked, low, full = (
            ("parameters", target.keep_params, least.params, self.full.params)
            if target.keep_params is not None
            else ("multiply-accumulates", target.keep_macs, least.macs, self.full.macs)
        )
        fraction = low / max(full, 1)
        return TargetError(
            f"{asked:.4g} of the {name} cannot be kept: at least {fraction:.4g} must stay",
            fix=f"Keep {min(fraction + 5e-5, 1):.4f} or more.",
            largest=full - low,
        )
