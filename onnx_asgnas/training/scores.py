"""Redundancy scores: which groups a search removes first.

A score gives every group a number, and the group with the highest goes first. There are two kinds. One reads the
groups' *statistics* (weights and gradients) and is averaged over the warm-up; the other reads the *loss*, and is taken
once, when the groups are chosen. `@from_statistics(name)` or `@from_loss(name)` on a function adds a score.

A sum of scores is written as a name ("cosine"), a preset ("paper", "hesso"), or names with weights
("magnitude:1,cosine:0.5"). Every part is scaled to 0 … 1 over the groups before it is weighed, so that parts of
different units can be added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnx_asgnas.errors import InputError
from onnx_asgnas.training.groups import GroupAtoms
from onnx_asgnas.training.loss_probe import LossProbe

__all__ = ["PRESETS", "RedundancyScore", "Statistics", "from_loss", "from_statistics", "parse_score", "score_names"]

FloatArray = npt.NDArray[np.float64]


class Statistics:
    """Sums over each group's weights x and gradients ∇f at one step, float64 [groups], taken when first asked for."""

    def __init__(
        self, atoms: GroupAtoms, weights: Sequence[Tensor | None], gradients: Sequence[Tensor | None], seed: int = 0
    ) -> None:
        self._sums = _Sums(atoms, weights, gradients)
        self._part = slice(None)
        self.seed = seed

    def among(self, part: slice) -> Statistics:
        """Those of some of the groups; what is summed already is not summed again."""
        result = copy(self)
        result._part = part
        return result

    @property
    def size(self) -> Tensor:
        """Number of variables."""
        return self._sums.size[self._part]

    @property
    def weight_norm(self) -> Tensor:
        """‖x‖₂."""
        return self._sums.weight_norm[self._part]

    @property
    def gradient_norm(self) -> Tensor:
        """‖∇f‖₂."""
        return self._sums.gradient_norm[self._part]

    @property
    def inner(self) -> Tensor:
        """⟨x, ∇f⟩."""
        return self._sums.inner[self._part]


class _Sums:
    """The sums over all groups, each taken once."""

    def __init__(self, atoms: GroupAtoms, weights: Sequence[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
        self._atoms = atoms
        self._weights = weights
        self._gradients = gradients

    @property
    def size(self) -> Tensor:
        return self._atoms.sizes

    @cached_property
    def weight_norm(self) -> Tensor:
        return self._atoms.norm_squared(self._weights).sqrt()

    @cached_property
    def gradient_norm(self) -> Tensor:
        return self._atoms.norm_squared(self._gradients).sqrt()

    @cached_property
    def inner(self) -> Tensor:
        return self._atoms.inner(self._weights, self._gradients)


StatisticsFunction = Callable[[Statistics], Tensor]
LossFunction = Callable[[LossProbe, tuple[int, ...]], FloatArray]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_STATISTICS: dict[str, StatisticsFunction] = {}
_ESTIMATES: set[str] = set()
_LOSS: dict[str, LossFunction] = {}

PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "paper": {"cosine": 0.5, "mean-magnitude": 0.5},
        "hesso": dict.fromkeys(("magnitude", "mean-magnitude", "cosine", "taylor1", "taylor2"), 0.2),
    }
)
"""The ASGNAS paper's default, and HESSO's."""


def from_statistics(name: str, *, estimate: bool = False) -> Callable[[_Function], _Function]:
    """Register a function of `Statistics`, giving redundancy [groups], as the score `name`.

    An `estimate` gives minus a rise of the loss, 0 at best.
    """
    if estimate:
        _ESTIMATES.add(name)
    return _register(_STATISTICS, name)


def from_loss(name: str) -> Callable[[_Function], _Function]:
    """Register a function of a `LossProbe` and the groups chosen so far, giving redundancy [groups], as `name`."""
    return _register(_LOSS, name)


def score_names() -> tuple[str, ...]:
    """Every registered score, in alphabetical order."""
    return tuple(sorted({**_STATISTICS, **_LOSS}))


def _register(registry: dict[str, Any], name: str) -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        if name in score_names() or name in PRESETS:
            raise ValueError(f"score {name!r} is registered twice")
        registry[name] = function
        return function

    return add


@from_statistics("magnitude")
def magnitude(groups: Statistics) -> Tensor:
    """Small weights are redundant: -‖x‖."""
    return -groups.weight_norm


@from_statistics("mean-magnitude")
def mean_magnitude(groups: Statistics) -> Tensor:
    """The inverse of the (quadratic) mean magnitude, √n / ‖x‖, so that a group's size does not count.

    Scaled by its largest value, which leaves 1 for a group that is zero already.
    """
    mean = groups.weight_norm / groups.size.sqrt()
    smallest = mean.min() if mean.numel() else mean.new_zeros(())
    return torch.where(mean == smallest, 1.0, smallest / mean)


@from_statistics("cosine")
def cosine(groups: Statistics) -> Tensor:
    """cos(-∇f, -x) = ⟨∇f, x⟩ / (‖∇f‖ ‖x‖): high where the step to the origin is a step downhill.

    To first order f(0) - f(x) = -⟨∇f, x⟩, so a positive cosine says that removal lowers the loss. A group without
    weights or gradient has 0.
    """
    length = groups.weight_norm * groups.gradient_norm
    return torch.where(length == 0, 0.0, groups.inner / length)


@from_statistics("taylor1", estimate=True)
def taylor1(groups: Statistics) -> Tensor:
    """Removal that changes the loss little to first order: -|⟨x, ∇f⟩|."""
    return -groups.inner.abs()


@from_statistics("taylor2", estimate=True)
def taylor2(groups: Statistics) -> Tensor:
    """Removal that changes the loss little to second order, by the Fisher estimate of the curvature: -½⟨x, ∇f⟩²."""
    return -0.5 * groups.inner.square()


@from_statistics("random")
def random(groups: Statistics) -> Tensor:
    """A baseline: uniform numbers that depend on the seed alone."""
    generator = torch.Generator().manual_seed(groups.seed)
    return torch.rand(len(groups.size), dtype=torch.float64, generator=generator).to(groups.size.device)


@from_loss("measured")
def measured(probe: LossProbe, chosen: tuple[int, ...]) -> FloatArray:
    """The rise of the loss when the group too is at zero, negated: a low rise is redundant.

    Cumulative: it is measured with the groups chosen so far at zero.
    """
    return -probe.rises(chosen)


def parse_score(score: str | Mapping[str, float]) -> dict[str, float]:
    """Weights by score name, of a name, a preset, "name:weight,name:weight", or such a mapping.

    Raises InputError for an unknown name, and for a weight that is not a positive number.
    """
    if isinstance(score, str):
        score = _parse_text(score)
    known = ", ".join((*PRESETS, *score_names()))
    for name, weight in score.items():
        if name not in _STATISTICS and name not in _LOSS:
            raise InputError(f"there is no score {name!r}", fix=f"Choose from: {known}.", score=name)
        if not 0 < weight < float("inf"):
            raise InputError(f"the weight of score {name!r} is {weight}", fix="Give a positive number.", score=name)
    if not score:
        raise InputError("no score is given", fix=f"Choose from: {known}.")
    return {name: float(weight) for name, weight in score.items()}


def _parse_text(text: str) -> Mapping[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            raise InputError(
                f"the weight of score {name!r} is {number!r}",
                fix='Write scores as "name:weight,name:weight".',
                score=name,
            ) from None
        for inner, share in PRESETS.get(name, {name: 1.0}).items():
            weights[inner] = weights.get(inner, 0.0) + weight * share
    return weights


class RedundancyScore:
    """A weighted sum of scores; what reads statistics is kept as the moving average s ← ω s + (1-ω) s_t.

    The average is divided by 1-ωᵗ, as Adam's moments are, which leaves the order and gives it the scale of s_t.
    """

    def __init__(self, score: str | Mapping[str, float], *, momentum: float = 0.9) -> None:
        if not 0 <= momentum < 1:
            raise InputError(f"score_momentum is {momentum}", fix="Give a value from 0 to below 1.")
        self.weights = parse_score(score)
        self._momentum = momentum
        self._average: Tensor | None = None
        self._samples = 0

    @property
    def reads_statistics(self) -> bool:
        """Whether `sample` has to be called in the warm-up."""
        return any(name in _STATISTICS for name in self.weights)

    @property
    def reads_loss(self) -> bool:
        """Whether `rank` needs a probe."""
        return any(name in _LOSS for name in self.weights)

    @property
    def is_price(self) -> bool:
        """Whether `rank` gives minus a rise of the loss, so that groups compare by price for what they take along."""
        return self.reads_loss and len(self.weights) == 1

    @property
    def is_estimate(self) -> bool:
        """Whether 1 - `rank` is in proportion to a rise of the loss, as far as weights and gradients tell it."""
        return set(self.weights) <= _ESTIMATES and len(self.weights) == 1

    def sample(self, statistics: Statistics) -> None:
        """Take one step's statistics into the average."""
        parts = [w * _scaled(_STATISTICS[n](statistics)) for n, w in self.weights.items() if n in _STATISTICS]
        value = torch.stack(parts).sum(0)
        before = torch.zeros_like(value) if self._average is None else self._average
        self._average = self._momentum * before + (1 - self._momentum) * value
        self._samples += 1

    def rank(self, chosen: tuple[int, ...], probe: LossProbe | None = None) -> FloatArray:
        """Redundancy of every group, float64 [groups], given those chosen so far, whose entries mean nothing.

        One score that reads the loss, alone, keeps its unit (of the loss).
        """
        if self.reads_loss and probe is None:
            raise InputError(
                f"the score {self} measures the loss, and nothing is given that does",
                fix="Pass evaluate, a function that gives the loss on a few training batches, or choose another score.",
            )
        total: FloatArray | float = 0.0
        if self._average is not None:
            total = (self._average / (1 - self._momentum**self._samples)).cpu().numpy()
        for name, weight in self.weights.items():
            if name in _LOSS and probe is not None:
                values = _LOSS[name](probe, chosen)
                if len(self.weights) == 1:
                    return values
                others = np.delete(values, list(chosen))
                scaled = np.zeros_like(values)
                scaled[np.delete(np.arange(len(values)), list(chosen))] = _scaled(torch.from_numpy(others)).numpy()
                total = total + weight * scaled
        return np.asarray(total, dtype=np.float64)

    def state_dict(self) -> dict[str, Any]:
        """The average so far."""
        return {"average": self._average, "samples": self._samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._average = state["average"]
        self._samples = state["samples"]

    def __str__(self) -> str:
        return ",".join(f"{name}:{weight:g}" for name, weight in self.weights.items())


def _scaled(values: Tensor) -> Tensor:
    """Values brought to 0 … 1 over the groups; equal ones become 0."""
    if not values.numel():
        return values
    low, high = values.min(), values.max()
    return torch.where(high > low, (values - low) / (high - low), 0.0 * values)
