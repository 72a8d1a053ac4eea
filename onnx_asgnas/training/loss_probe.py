"""How much the loss rises when groups are at zero: measured, forward only, and without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from onnx_asgnas.errors import NonFiniteError
from onnx_asgnas.training.groups import GroupAtoms

__all__ = ["LossProbe", "samples_for"]

_MOST, _FEWEST = 1024, 64
_ROUND = 4096
"""Samples that measuring every group once may take, within these limits."""
_EXACT = 80
_EVALUATIONS = 1024
"""Of more groups than that, about so many evaluations all choices together may take."""


def samples_for(groups: int) -> int:
    """How many training samples one evaluation looks at where there are so many groups, a multiple of 64.

    Rises are differences of losses on the same samples, so few of them tell groups apart.
    """
    return min(_MOST, max(_FEWEST, _ROUND // max(groups, 1) // _FEWEST * _FEWEST))


class LossProbe:
    """Evaluates a model's loss with chosen groups at zero; weights and buffers come back to the bit.

    All that is left is measured anew for each choice; of more than 80 groups, after several choices, so that about a
    thousand evaluations do. To measure only what seemed best before is no way to save them: a group's rise falls, too,
    when another one is gone.
    """

    def __init__(self, model: nn.Module, atoms: GroupAtoms, evaluate: Callable[[], float]) -> None:
        self._model = model
        self._atoms = atoms
        self._evaluate = evaluate
        self._every = 1 if atoms.n_groups <= _EXACT else round(atoms.n_groups**2 / (2 * _EVALUATIONS))
        self._measured_at = 0
        self._losses: dict[frozenset[int], float] = {}
        self._rises: npt.NDArray[np.float64] | None = None

    def loss(self, groups: frozenset[int]) -> float:
        """The loss with these groups at zero; every set is evaluated once."""
        if groups not in self._losses:
            with self._at_zero(groups), torch.no_grad():
                self._losses[groups] = float(self._evaluate())
        return self._losses[groups]

    def rises(self, chosen: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """How much the loss rises for each group when it follows `chosen`, float64 [groups]; 0 for the chosen.

        Where the loss becomes NaN or infinite the rise stands above all others. Raises NonFiniteError when it is so
        before anything is removed.
        """
        if self._rises is not None and 0 < len(chosen) - self._measured_at < self._every:
            known: npt.NDArray[np.float64] = self._rises.copy()
            known[list(chosen)] = 0.0
            return known
        self._measured_at = len(chosen)
        base = self.loss(frozenset(chosen))
        if not chosen and not math.isfinite(base):
            raise NonFiniteError(
                f"the loss is {base} with no group at zero", fix="Lower the learning rate, or look for NaN in the data."
            )
        rises = np.zeros(self._atoms.n_groups)
        for group in np.setdiff1d(np.arange(self._atoms.n_groups), chosen).tolist():
            rises[group] = self.loss(frozenset((*chosen, group))) - base
        worst = np.abs(rises[np.isfinite(rises)]).max(initial=0.0)
        rises[~np.isfinite(rises)] = 2 * worst + 1
        rises[list(chosen)] = 0.0
        self._rises = rises
        return rises

    @contextmanager
    def _at_zero(self, groups: frozenset[int]) -> Iterator[None]:
        mask = torch.zeros(self._atoms.n_groups, dtype=torch.bool)
        mask[list(groups)] = True
        parts = self._atoms.zero_parts(mask.to(self._atoms.sizes.device))
        touched: dict[int, Tensor] = {id(part.parameter): part.parameter for part in parts}
        touched.update((id(buffer), buffer) for buffer in self._model.buffers())
        kept = {key: tensor.detach().clone() for key, tensor in touched.items()}
        try:
            with torch.no_grad():
                for part in parts:
                    part.fill(part.parameter)
            yield
        finally:
            with torch.no_grad():
                for key, tensor in touched.items():
                    tensor.copy_(kept[key])
