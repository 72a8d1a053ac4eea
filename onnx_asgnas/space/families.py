"""Channel groups as a person looks at them: by layer, with what has slices of them and why some of them stay."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_asgnas.operators.labelled import Ids, Kind, LabelledAxis
from onnx_asgnas.space.channel_cost import ChannelCost
from onnx_asgnas.space.channels import Channels
from onnx_asgnas.space.coupling import Coupling

_WORDS = {Kind.PRODUCED: "produced", Kind.AFFINE: "affine", Kind.CUT: "cut"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An initializer axis on which a family of channel groups has slices, and the operators that read it.

    `kind` is what the slices are: "produced" (they make the channels), "affine" (a scale or bias behind), or "cut"
    (they read the channels).
    """

    initializer: str
    axis: int
    kind: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelFamily:
    """The channel groups that the outputs of one layer form, or of several whose outputs are added.

    `groups` leave one by one, each with all its channels, and `free` counts those that may leave. `channels` is the
    width of the layer. `reasons` say why others stay. `params` and `macs` are what the network loses with all free
    groups, as far as nothing else has left.
    """

    name: str
    groups: int
    free: int
    channels: int
    members: tuple[Member, ...]
    reasons: tuple[str, ...]
    params: int
    macs: int


def channel_families(channels: Channels, costs: ChannelCost) -> tuple[ChannelFamily, ...]:
    """All families in the order of the operators; those that stay as a whole included."""
    coupling: Coupling | None = channels.coupling
    found: dict[str, ChannelFamily] = {}
    while coupling is not None:
        for family in _families(coupling, channels if coupling is channels.coupling else None, costs):
            found.setdefault(family.name, family)
        coupling = coupling.before
    order = {name: at for at, name in enumerate(channels.graph.initializers)}
    first = {
        name: min((r for r in channels.graph.consumers.get(name, ())), default=len(channels.graph.nodes))
        for name in found
    }
    return tuple(sorted(found.values(), key=lambda family: (first[family.name], order.get(family.name, 0))))


def _families(coupling: Coupling, channels: Channels | None, costs: ChannelCost) -> list[ChannelFamily]:
    produced = [axis for axis in coupling.book.axes.values() if Kind.PRODUCED in axis.kind]
    if not produced:
        return []
    family_of = _components(coupling, produced)
    members: defaultdict[int, list[LabelledAxis]] = defaultdict(list)
    for axis in coupling.book.axes.values():
        for family in np.unique(family_of[_groups(coupling, axis)]).tolist():
            if family >= 0 and axis.kind is not Kind.SOURCE:
                members[family].append(axis)
    reasons: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for freeze in coupling.book.freezes:
        for family in np.unique(family_of[coupling.group[freeze.labels]]).tolist():
            reasons[family][freeze.reason] = None
    totals = np.bincount(family_of[family_of >= 0], minlength=coupling.count).tolist()
    frees, savings = [0] * coupling.count, {}
    if channels is not None:
        free = np.zeros(coupling.count, bool)
        free[coupling.group[channels.number >= 0]] = True
        frees = np.bincount(family_of[free], minlength=coupling.count).tolist()
        savings = costs.savings(np.where(channels.number >= 0, family_of[coupling.group], -1))
    held = set() if channels is None else set(family_of[coupling.group[channels.protected]].tolist())
    return [
        _family(
            coupling,
            axes,
            totals[family],
            frees[family],
            tuple(reasons[family]),
            savings.get(family, (0, 0)),
            family in held,
        )
        for family, axes in members.items()
    ]


def _components(coupling: Coupling, produced: list[LabelledAxis]) -> Ids:
    """The family of each group; -1 for groups that nothing produces."""
    firsts = np.concatenate([np.full(axis.length, _groups(coupling, axis)[0]) for axis in produced])
    others = np.concatenate([_groups(coupling, axis) for axis in produced])
    shape = (coupling.count, coupling.count)
    parts = connected_components(
        coo_array((np.ones(len(firsts), np.int8), (firsts, others)), shape=shape), directed=False
    )[1]
    family = np.full(coupling.count, -1, np.int64)
    family[others] = parts[others]
    return family


def _groups(coupling: Coupling, axis: LabelledAxis) -> Ids:
    return coupling.group[axis.start : axis.start + axis.length]


def _family(
    coupling: Coupling,
    axes: list[LabelledAxis],
    groups: int,
    free: int,
    reasons: tuple[str, ...],
    saved: tuple[int, int],
    protected: bool,
) -> ChannelFamily:
    makers = [axis for axis in axes if Kind.PRODUCED in axis.kind]
    if free < groups and protected:
        reasons = ("protected", *reasons)
    elif free < groups and not reasons:
        reasons = ("they leave only together, and one has to stay",)
    return ChannelFamily(
        name=makers[0].owner,
        groups=groups,
        free=free,
        channels=max(axis.length for axis in makers),
        members=tuple(_member(coupling, axis) for axis in axes),
        reasons=reasons if free < groups else (),
        params=saved[0],
        macs=saved[1],
    )


def _member(coupling: Coupling, axis: LabelledAxis) -> Member:
    graph = coupling.graph
    word = next((word for kind, word in _WORDS.items() if kind in axis.kind), "cut")
    readers = dict.fromkeys(graph.nodes[node].name for node in graph.consumers.get(axis.owner, ()))
    return Member(initializer=axis.owner, axis=axis.axis, kind=word, nodes=tuple(readers))
