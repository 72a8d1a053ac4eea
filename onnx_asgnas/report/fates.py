"""What became of each removal structure, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from onnx_asgnas.space import RemovalState, SearchSpace, Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """A structure, whether it is gone, whether it was chosen, its redundancy when that was decided, and the reason."""

    structure: Structure
    removed: bool
    chosen: bool
    redundancy: float | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fate, and what `analyze` tells of the structure."""
        structure = self.structure
        return {
            "tensor": structure.tensor,
            "removed": self.removed,
            "chosen": self.chosen,
            "redundancy": self.redundancy,
            "reason": self.reason,
            "segment": list(structure.segment),
            "region": list(structure.region),
            "parent": structure.parent,
            "minimal": structure.minimal,
            "erasable": structure.erasable,
            "params": structure.params,
            "macs": structure.macs,
        }


def fates_of(space: SearchSpace, chosen: Collection[str], redundancy: Mapping[str, float]) -> tuple[Fate, ...]:
    """The fate of every structure of a space that is bound to its model, in topological order.

    `chosen` are the removal tensors of the groups at zero. As in construct, one without which the network would be cut
    through stays.
    """
    state = space.removal_state()
    place = {structure.tensor: at for at, structure in enumerate(space.candidates)}
    erased = {space.candidates[at].tensor for at in state.erase_all([at for t, at in place.items() if t in chosen])}
    parents = {structure.tensor: structure.parent for structure in space.structures}
    fates = []
    for structure in space.structures:
        tensor = structure.tensor
        removed = state.is_gone(tensor)
        if removed:
            reason = _why_gone(tensor, chosen, erased, parents)
        elif not structure.erasable:
            reason = structure.reason
        else:
            reason = _why_kept(state, place[tensor], tensor in chosen)
        fates.append(
            Fate(
                structure=structure,
                removed=removed,
                chosen=tensor in chosen,
                redundancy=redundancy.get(tensor),
                reason=reason,
            )
        )
    return tuple(fates)


def _why_gone(tensor: str, chosen: Collection[str], erased: Collection[str], parents: Mapping[str, str | None]) -> str:
    if tensor in erased:
        return "chosen"
    above = parents[tensor]
    while above is not None and above not in erased:
        above = parents[above]
    cause = f"dead without '{above}'" if above is not None else "dead without the others"
    return f"chosen, and {cause} anyway" if tensor in chosen else cause


def _why_kept(state: RemovalState, at: int, chosen: bool) -> str:
    if chosen:
        return "it is at zero, but the network needs it"
    valid = state.erase(at)
    state.undo()
    return "the target was met without it" if valid else "with the others gone, the network needs it"
