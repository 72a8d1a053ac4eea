"""Distillation (Hinton, Vinyals, Dean 2015): a part of the loss is how far the outputs are from a teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.specs import Spec, call
from onnx_asgnas.training.data.checks import LABEL
from onnx_asgnas.training.losses.classes import class_axis
from onnx_asgnas.training.losses.kinds import Inputs
from onnx_asgnas.training.losses.naming import place_of
from onnx_asgnas.training.losses.objective import Objective, Teacher, Term

_MASK = "attention_mask"


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """KL divergence from the teacher's class probabilities at a temperature T to the student's, times T².

    The mean over the positions of a sample (tokens, pixels; not where an attention mask is zero). T² keeps the gradient
    as large as that of the hard labels.
    """

    temperature: float = 4.0
    axis: int | None = None
    metrics: ClassVar[tuple[str, ...]] = ()

    def target(self, inputs: Sequence[str]) -> str:
        """See Kind; unused, since the teacher gives the targets."""
        return LABEL

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """See Kind."""
        return None

    def count(self, target: Tensor, inputs: Inputs) -> Tensor:
        """The number of samples."""
        return torch.tensor(len(target))

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind; `target` is the teacher's output."""
        student, teacher = self.judged(output, target, inputs)
        axis = class_axis(student.ndim, self.axis)
        divergence = functional.kl_div(
            (student / self.temperature).log_softmax(axis),
            (teacher / self.temperature).log_softmax(axis),
            reduction="none",
            log_target=True,
        ).sum(axis)
        return _mean_by_sample(divergence, inputs).sum() * self.temperature**2

    def judged(self, output: Tensor, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The two outputs; raises DataError where their shapes differ."""
        return _alike(output, target)


@dataclass(frozen=True, slots=True)
class Features:
    """The mean squared difference from the teacher's output, over the elements of each sample."""

    metrics: ClassVar[tuple[str, ...]] = ()

    def target(self, inputs: Sequence[str]) -> str:
        """See Kind; unused, since the teacher gives the targets."""
        return LABEL

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """See Kind."""
        return None

    def count(self, target: Tensor, inputs: Inputs) -> Tensor:
        """The number of samples."""
        return torch.tensor(len(target))

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind; `target` is the teacher's output."""
        student, teacher = self.judged(output, target, inputs)
        squares = (student - teacher).square()
        if squares.ndim == 3:  # tokens: padding does not count
            return _mean_by_sample(squares.mean(-1), inputs).sum()
        return squares.flatten(1).mean(1).sum()

    def judged(self, output: Tensor, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The two outputs; raises DataError where their shapes differ."""
        return _alike(output, target)


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a teacher teaches: `kind` of loss, `weight` of all of it (the hard losses have the rest), temperature.

    `output` is the output that is compared (None: those that the hard losses are on).
    """

    kind: Literal["logits", "features"] = "logits"
    weight: float = 0.5
    temperature: float = 4.0
    output: str | None = None


def lesson(spec: Spec) -> Lesson:
    """The lesson that the arguments of `--distill TEACHER?kind=…&weight=…&temperature=…` give; raises InputError."""
    found: Lesson = call(Lesson, spec.arguments, what="--distill", error=InputError)
    if found.kind not in ("logits", "features"):
        raise InputError(f"kind is {found.kind!r}", fix="Choose logits or features.")
    if not 0 < found.weight <= 1 or not found.temperature > 0:
        raise InputError(
            f"weight is {found.weight:g} and temperature is {found.temperature:g}",
            fix="The weight is a fraction between 0 and 1, the temperature is above zero.",
        )
    return found


def distilled(
    hard: Objective, teacher: Teacher, how: Lesson, *, outputs: Sequence[str], taught_outputs: Sequence[str]
) -> Objective:
    """An objective with a teacher: the hard losses weigh 1 - weight together, what the teacher says weighs `weight`.

    `outputs` are the names of the student's outputs, `taught_outputs` of the teacher's; they go together by name, or
    are the only ones. Raises InputError where there is no such output.
    """
    names = [how.output] if how.output is not None else list(_looked_at(hard, outputs))
    terms = [
        Term(
            kind=SoftLabels(how.temperature) if how.kind == "logits" else Features(),
            weight=how.weight / len(names),
            output=place_of(name, outputs),
            name=name,
            taught=0 if len(outputs) == len(taught_outputs) == 1 else place_of(name, taught_outputs),
        )
        for name in names
    ]
    rest = [replace(term, weight=term.weight * (1 - how.weight)) for term in hard.terms]
    return Objective(terms=(*rest, *terms), teacher=teacher, hard_terms=hard.terms)


def _looked_at(hard: Objective, outputs: Sequence[str]) -> list[str]:
    """The outputs that the hard losses are on; the first where they do not say."""
    return list(dict.fromkeys(outputs[term.output or 0] for term in hard.terms))


def _mean_by_sample(values: Tensor, inputs: Inputs) -> Tensor:
    """The mean of [N, …] over all but the first axis, where the attention mask, if there is one, is not zero."""
    mask = inputs.get(_MASK)
    if mask is None or mask.shape != values.shape:
        return values.flatten(1).mean(1) if values.ndim > 1 else values
    kept = (mask != 0).to(values)
    return (values * kept).flatten(1).sum(1) / kept.flatten(1).sum(1).clamp(min=1)


def _alike(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if output.shape != target.shape:
        raise DataError(
            f"the teacher's output is of shape {list(target.shape)}, the network's of {list(output.shape)}",
            fix="Name an output that both have alike: --distill TEACHER?output=NAME.",
        )
    return output, target
