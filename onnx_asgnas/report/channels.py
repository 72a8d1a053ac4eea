"""Channel families as a person reads them: layers by their own names, layers that are alike in one row."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.space import SearchSpace
from onnx_asgnas.space.families import ChannelFamily, Member

_MADE_UP = re.compile(r"(onnx::\w+|val)_\d+|\d+|const_.*|_.*")
"""Names that an exporter gives to weights that have lost their own."""
_ROLES = re.compile(r"[._/](weight|bias|kernel|gamma|beta|scale|W|B)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyRow:
    """Families that are alike: a pattern of their names, and the figures of one of them."""

    name: str
    families: tuple[ChannelFamily, ...]

    @property
    def count(self) -> int:
        """How many layers it stands for."""
        return len(self.families)

    @property
    def params(self) -> int:
        """The parameters that leave with all free groups of one, on average."""
        return round(sum(family.params for family in self.families) / self.count)

    @property
    def macs(self) -> int:
        """The multiply-accumulates that leave with all free groups of one, on average."""
        return round(sum(family.macs for family in self.families) / self.count)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonRow:
    """Why channels stay, for all that the same reason holds."""

    what: str
    reason: str
    count: int
    groups: int
    example: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelFate:
    """What became of the channels of one layer: its width in the full model and in the compact one (0: all gone)."""

    layer: str
    width: int
    kept: int
    groups: int
    free: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def channel_fates(space: SearchSpace, compact: onnx.ModelProto) -> tuple[ChannelFate, ...]:
    """The fate of every layer from which channels may leave, in the order of the operators; none in erase mode."""
    if space.mode == "erase":
        return ()
    before = space.parts.graph.initializers
    after = {tensor.name: tensor for tensor in compact.graph.initializer}
    fates = []
    for family in space.channel_families():
        if family.free:
            widest = [m for m in _made(family) if before[m.initializer].dims[m.axis] == family.channels]
            kept = [after[m.initializer].dims[m.axis] for m in widest if m.initializer in after]
            fates.append(
                ChannelFate(
                    layer=layer_name(family),
                    width=family.channels,
                    kept=max(kept, default=0),
                    groups=family.groups,
                    free=family.free,
                )
            )
    return tuple(fates)


def chosen_by_layer(space: SearchSpace, chosen: Iterable[int]) -> dict[str, int]:
    """How many of these groups of the space are channels of each layer; layers without any are left out."""
    mask = np.zeros(len(space.candidates) + space.channels.count, bool)
    mask[list(chosen)] = True
    mask = mask[len(space.candidates) :]
    axes, counts = space.channels.coupling.book.axes, {}
    for family in space.channel_families():
        if family.free:
            numbers = [space.channels.numbers_on(axes[m.initializer, m.axis]) for m in _made(family)]
            found = np.unique(np.concatenate(numbers))
            counts[layer_name(family)] = int(mask[found[found >= 0]].sum())
    return {layer: count for layer, count in counts.items() if count}


def layer_name(family: ChannelFamily) -> str:
    """What the layer of a family is called: by the first weight or bias that still has its own name."""
    made = _made(family)
    for member in made:
        if not _MADE_UP.fullmatch(member.initializer):
            return _ROLES.sub("", member.initializer)
    return made[0].nodes[0] if made and made[0].nodes else family.name


def family_rows(families: Iterable[ChannelFamily], most: int) -> list[FamilyRow]:
    """A row for each family; beyond `most` of them those whose names differ in numbers only, and figures not at all."""
    listed = list(families)
    rows: dict[object, list[ChannelFamily]] = {}
    for at, family in enumerate(listed):
        key: object = at
        if len(listed) > most:
            key = (_pattern(layer_name(family)), family.channels, family.groups, family.free)
        rows.setdefault(key, []).append(family)
    return [FamilyRow(name=_joint_name([layer_name(f) for f in same]), families=tuple(same)) for same in rows.values()]


def kept_rows(space: SearchSpace) -> list[ReasonRow]:
    """Why families stay, or some groups of them: equal reasons together, the most channels first."""
    rows: dict[str, list[ChannelFamily]] = {}
    for family in space.channel_families():
        if family.free < family.groups:
            rows.setdefault(_why_kept(family, space.protected), []).append(family)
    found = [
        ReasonRow(
            what="",
            reason=reason,
            count=len(same),
            groups=sum(family.groups - family.free for family in same),
            example=_joint_name([layer_name(family) for family in same]),
        )
        for reason, same in rows.items()
    ]
    return sorted(found, key=lambda row: -row.groups)


def _why_kept(family: ChannelFamily, protected: Collection[str]) -> str:
    if any(node in protected for member in _made(family) for node in member.nodes):
        return "protected"
    return "; ".join(family.reasons)


def frozen_rows(space: SearchSpace) -> list[ReasonRow]:
    """What freezes channels, by operator type and reason: how many operators, and the channel groups they hold."""
    rows: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for frozen in space.frozen:
        rows.setdefault((frozen.op_type, frozen.reason), []).append((frozen.node, frozen.channels))
    found = [
        ReasonRow(
            what=op_type,
            reason=reason,
            count=len(same),
            groups=sum(channels for _, channels in same),
            example=_joint_name([node for node, _ in same]),
        )
        for (op_type, reason), same in rows.items()
    ]
    return sorted(found, key=lambda row: -row.groups)


def _made(family: ChannelFamily) -> list[Member]:
    """What makes the channels of a family or acts on them, without what only reads them."""
    return [member for member in family.members if member.kind != "cut"]


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _joint_name(names: Sequence[str]) -> str:
    """One name for several: their common pattern if they differ in numbers only, else the first of them and "…"."""
    if len(set(names)) == 1:
        return names[0]
    if len({_pattern(name) for name in names}) > 1:
        return f"{names[0]} …"
    pieces = [re.split(r"(\d+)", name) for name in names]
    return "".join(part[0] if len(set(part)) == 1 else "*" for part in zip(*pieces, strict=True))
