"""What a network costs once some of its channels have left, exactly and without making it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule, counted_parameters
from onnx_asgnas.space.cost import Cost, elements
from onnx_asgnas.space.coupling import Coupling

Mask = NDArray[np.bool_]


class ChannelCost:
    """Parameters and multiply-accumulates as a function of the labels that leave.

    A weight shrinks along each of its labelled axes, and a node's multiply-accumulates with the channels that it reads
    and makes.
    """

    def __init__(self, graph: TraceGraph, rules: Sequence[Rule | None], coupling: Coupling) -> None:
        axes = list(coupling.book.axes.values())
        parameters = counted_parameters(graph, rules)
        place = {name: at for at, name in enumerate(parameters)}
        self.parameters = parameters
        self._elements = np.array([elements(graph, name) for name in parameters], np.float64)
        self._starts = np.array([axis.start for axis in axes], np.int64)
        self._lengths = np.array([axis.length for axis in axes], np.float64)
        owners = np.array([place.get(axis.owner, -1) for axis in axes], np.int64)
        self._axis, self._owner = np.flatnonzero(owners >= 0), owners[owners >= 0]
        macs = np.array([0 if rule is None else rule.macs for rule in rules], np.float64)
        work = [(node, labels) for node, sets in coupling.book.work.items() for labels in sets if macs[node]]
        self._macs = macs
        self._work_node = np.array([node for node, _ in work], np.int64)
        self._work_sizes = np.array([len(labels) for _, labels in work], np.int64)
        self._work_labels = np.concatenate([labels for _, labels in work]) if work else np.zeros(0, np.int64)
        self._work_starts = np.cumsum([0, *self._work_sizes[:-1]]) if work else np.zeros(0, np.int64)

    @property
    def full(self) -> Cost:
        """The cost with nothing gone."""
        return Cost(params=int(self._elements.sum()), macs=int(self._macs.sum()))

    def cost(self, gone: Mask, dead: frozenset[str] = frozenset(), computed: Sequence[bool] | None = None) -> Cost:
        """The cost without these labels, bool [labels], these parameters, and the nodes that are not computed."""
        return Cost(params=int(self.params_left(gone, dead).sum()), macs=int(self._macs_left(gone, computed).sum()))

    def params_left(self, gone: Mask, dead: frozenset[str] = frozenset()) -> NDArray[np.float64]:
        """How many elements of each trainable parameter stay."""
        left: NDArray[np.float64] = self._elements.copy()
        if len(self._starts):
            lost = np.add.reduceat(gone.astype(np.float64), self._starts)
            np.multiply.at(left, self._owner, ((self._lengths - lost) / self._lengths)[self._axis])
        left = np.round(left)
        if dead:
            left[[name in dead for name in self.parameters]] = 0
        return left

    def _macs_left(self, gone: Mask, computed: Sequence[bool] | None) -> NDArray[np.float64]:
        left: NDArray[np.float64] = self._macs.copy()
        if len(self._work_node):
            leaves = np.append(gone, False)[self._work_labels].astype(np.float64)
            lost = np.add.reduceat(leaves, self._work_starts)
            np.multiply.at(left, self._work_node, (self._work_sizes - lost) / self._work_sizes)
        return np.round(left) if computed is None else np.round(left) * np.asarray(computed, np.float64)

    def savings(self, family: NDArray[np.int64]) -> dict[int, tuple[int, int]]:
        """What the network loses with each family of labels alone: parameters and multiply-accumulates.

        `family` gives the family of each label, -1 for labels that stay. One pass over all, whatever their number.
        """
        axis_of = np.repeat(np.arange(len(self._starts)), self._lengths.astype(np.int64))
        owner_of = np.full(len(self._starts), -1, np.int64)
        owner_of[self._axis] = self._owner
        params = _lost(self._elements, owner_of, self._lengths, axis_of, family)
        sets = np.repeat(np.arange(len(self._work_sizes)), self._work_sizes)
        here = np.where(self._work_labels >= 0, np.append(family, -1)[self._work_labels], -1)
        macs = _lost(self._macs, self._work_node, self._work_sizes, sets, here)
        return {key: (round(params.get(key, 0)), round(macs.get(key, 0))) for key in params.keys() | macs.keys()}


def _lost(
    amounts: NDArray[np.float64],
    owner: NDArray[np.int64],
    lengths: NDArray[np.float64] | NDArray[np.int64],
    piece: NDArray[np.int64],
    family: NDArray[np.int64],
) -> dict[int, float]:
    """How much of all amounts leaves with each family: an amount shrinks with each of its pieces.

    `owner` gives the amount of each piece (-1 for none), `lengths` its size; `piece` and `family` those of each place.
    """
    here = (family >= 0) & (owner[piece] >= 0 if len(owner) else False)
    pairs, counts = np.unique(np.stack([family[here], piece[here]]), axis=1, return_counts=True)
    left = 1 - counts / lengths[pairs[1]]
    keys, at = np.unique(np.stack([pairs[0], owner[pairs[1]]]), axis=1, return_inverse=True)
    kept = np.ones(keys.shape[1])
    np.multiply.at(kept, at.reshape(-1), left)
    lost = amounts[keys[1]] * (1 - kept)
    families, place = np.unique(keys[0], return_inverse=True)
    sums = np.bincount(place.reshape(-1), lost, minlength=len(families))
    return dict(zip(families.tolist(), sums.tolist(), strict=True))
