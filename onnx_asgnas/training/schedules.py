"""How the learning rate goes over a run: pure functions of the step, so that a resumed run has the same bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_asgnas.errors import InputError
from onnx_asgnas.specs import call, parse_spec


def constant(done: float) -> float:
    """The learning rate as it was given, all the time."""
    return 1.0


def cosine(done: float, *, hold: float = 0.0) -> float:
    """The full learning rate for the fraction `hold` of the run, then half a cosine to zero."""
    if not 0 <= hold < 1:
        raise InputError(f"hold is {hold:g}", fix="Write a fraction of the run: cosine?hold=0.15.")
    return 0.5 * (1 + math.cos(math.pi * max(0.0, done - hold) / (1 - hold)))


def step(done: float, *, milestones: Any = (0.5, 0.75), gamma: float = 0.1) -> float:
    """The learning rate times `gamma` from each milestone on, which is a fraction of the run."""
    if not (isinstance(milestones, Sequence) and all(isinstance(m, int | float) for m in milestones) and gamma > 0):
        raise InputError(
            f"milestones are {milestones!r} and gamma is {gamma:g}",
            fix="Write fractions of the run and a factor above zero: step?milestones=(0.5,0.75)&gamma=0.1.",
        )
    return float(gamma ** sum(done >= milestone for milestone in milestones))


_SHAPES: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "step": step}


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The factor of the learning rate at each step.

    In the fraction `warmup` of the run it rises in a straight line; `shape` runs over what follows, from the fraction 0
    to 1 of it, and is never below `floor`.
    """

    shape: Callable[[float], float] = cosine
    warmup: float = 0.0
    floor: float = 0.0

    def __call__(self, at: int, total: int) -> float:
        """The factor of step `at`, from 0, of `total`."""
        rising = round(self.warmup * total)
        if at < rising:
            return (at + 1) / rising
        return max(self.floor, self.shape((at - rising) / (total - rising)))


def learning_rate(text: str, *, warmup: float = 0.0, floor: float = 0.0) -> LearningRate:
    """The schedule that a text names: `cosine?hold=0.15`, `constant`, or `step?milestones=(0.5,0.75)&gamma=0.1`.

    `warmup` is a fraction of the run, `floor` one of the full learning rate. Raises InputError.
    """
    spec = parse_spec(text, InputError)
    if spec.name not in _SHAPES:
        raise InputError(f"there is no schedule {spec.name!r}", fix=f"Choose one of: {', '.join(sorted(_SHAPES))}.")
    for name, value in (("warm-up, as a part of the training,", warmup), ("lowest part of the learning rate", floor)):
        if not 0 <= value < 1:
            raise InputError(f"the {name} is {value:g}", fix="Give less than the whole, and not below zero.")
    shape = functools.partial(_SHAPES[spec.name], **spec.arguments)
    call(functools.partial(_SHAPES[spec.name], 0.0), spec.arguments, what=text, error=InputError)
    return LearningRate(shape, warmup, floor)
