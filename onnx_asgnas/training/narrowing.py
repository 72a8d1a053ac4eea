"""The network without what is at zero, in which the last phase trains at its cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnx_asgnas.errors import ConstructError
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.groups import ZeroPart

Kept = Mapping[str, Mapping[int, npt.NDArray[np.int64]]]
"""Of each tensor that lost something: which indices of which axes are left."""
State = defaultdict[Tensor, Any]
"""What an optimiser remembers of each parameter."""


class Narrowed:
    """A compact network beside the full one that it was made from; tensors of the same name belong together.

    `kept` says which indices of a tensor's axes the compact network has. What the full network does not train, or does
    not have (a part that became constant), is not trained here either. Raises ConstructError where a weight of the
    compact network is not the part of the full one's that `kept` says.
    """

    def __init__(self, full: OnnxModule, module: OnnxModule, kept: Kept) -> None:
        self.module = module
        self._full = full
        self._index = {
            name: {axis: torch.from_numpy(at).to(full.flat.device) for axis, at in axes.items()}
            for name, axes in kept.items()
        }
        self._whole = {**dict(full.named_parameters()), **dict(full.named_buffers())}
        self._pairs: dict[Tensor, tuple[str, Tensor]] = {}  # of the compact network, by the tensor of the full one
        self._held: list[tuple[Tensor, Tensor]] = []
        trained = {name for name, parameter in full.named_parameters() if parameter.requires_grad}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trained)
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name in self._whole:
                self._pairs[self._whole[name]] = (name, tensor)
        with torch.no_grad():
            for whole, (name, tensor) in self._pairs.items():
                part = self._part(name, whole)
                if part.shape != tensor.shape:
                    raise ConstructError(
                        f"{name!r} has shape {[*tensor.shape]} in the compact network, and not {[*part.shape]}",
                        fix="Please report this model.",
                        tensor=name,
                    )
                tensor.copy_(part)

    def parameters(self, wanted: Iterable[Tensor]) -> list[Tensor]:
        """The compact network's own, trained ones of these parameters of the full network."""
        found = (self._pairs[p][1] for p in wanted if p in self._pairs)
        return [p for p in found if p.requires_grad]

    def state(self, whole: Mapping[Tensor, Any]) -> State:
        """What an optimiser remembers of the full network's parameters, cut to the compact one's."""
        result: State = defaultdict(dict)
        for parameter, (name, own) in self._pairs.items():
            for key, value in whole.get(parameter, {}).items():
                result[own][key] = self._part(name, value).clone() if _fits(value, parameter) else value
        return result

    def whole_state(self, state: Mapping[Tensor, Any]) -> State:
        """The way back from `state`; it is zero where something was cut away."""
        result: State = defaultdict(dict)
        for parameter, (name, own) in self._pairs.items():
            for key, value in state.get(own, {}).items():
                if _fits(value, own):
                    found = torch.zeros_like(parameter)
                    self._put(name, value, found)
                    result[parameter][key] = found
                else:
                    result[parameter][key] = value
        return result

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring the full network's weights and statistics up to date."""
        for whole, (name, own) in self._pairs.items():
            self._put(name, own, whole)

    @torch.no_grad()
    def hold_at_zero(self, parts: Sequence[ZeroPart]) -> None:
        """Keep zeros at zero that could not leave the network, as the last channel of a layer."""
        masks: dict[Tensor, Tensor] = {}
        for part in parts:
            if part.parameter in self._pairs:
                mask = masks.setdefault(part.parameter, torch.zeros_like(part.parameter))
                if part.axis is None:
                    mask.fill_(1.0)
                else:
                    mask.index_fill_(part.axis, part.index, 1.0)
        self._held = [
            (own, held)
            for whole, mask in masks.items()
            for name, own in (self._pairs[whole],)
            if bool((held := self._part(name, mask) > 0).any())
        ]

    @torch.no_grad()
    def fill(self, state: Mapping[Tensor, Any]) -> None:
        """Set to zero what is held there, in the weights and in an optimiser's memory of them."""
        for own, held in self._held:
            for tensor in (own, *(value for value in state.get(own, {}).values() if _fits(value, own))):
                tensor.masked_fill_(held, 0.0)

    def _part(self, name: str, whole: Tensor) -> Tensor:
        for axis, index in self._index.get(name, {}).items():
            whole = whole.index_select(axis, index)
        return whole

    def _put(self, name: str, part: Tensor, whole: Tensor) -> None:
        axes = self._index.get(name)
        if not axes:
            whole.copy_(part)
            return
        places = []
        for axis, size in enumerate(whole.shape):
            index = axes.get(axis, torch.arange(size, device=whole.device))
            places.append(index.view([-1 if other == axis else 1 for other in range(whole.ndim)]))
        whole[tuple(places)] = part


def _fits(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
