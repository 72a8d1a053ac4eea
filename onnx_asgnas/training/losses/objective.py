"""The objective of a training: losses on outputs, weighed, with parts of a batch that add up to the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.checks import IGNORED, LABEL
from onnx_asgnas.training.data.dataset import Targets, samples_in
from onnx_asgnas.training.losses.kinds import Inputs, Kind, Outputs, Own

Teacher: TypeAlias = Callable[[Inputs], tuple[Tensor, ...]]
"""A network in inference form, whose outputs another one learns from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One loss: on which output (None: whatever the network gives), against which targets, with which weight.

    A `taught` term has the teacher's output of that place for its targets.
    """

    kind: Kind
    weight: float = 1.0
    output: int | None = None
    name: str = ""
    target: str = LABEL
    taught: int | None = None

    def count(self, inputs: Inputs, targets: Targets) -> Tensor:
        """How many items this term has in a batch."""
        if self.taught is not None:
            return torch.tensor(samples_in(inputs, targets))
        return self.kind.count(self._target(targets), inputs)

    def total(self, outputs: Outputs, inputs: Inputs, targets: Targets, taught: tuple[Tensor, ...]) -> Tensor:
        """The sum over the items of a batch, all of which lies on one device."""
        target = self._target(targets) if self.taught is None else taught[self.taught]
        return self.kind.total(self._output(outputs), target, inputs)

    def judged(self, outputs: Outputs, inputs: Inputs, targets: Targets) -> tuple[Tensor, Tensor]:
        """What metrics see of a batch."""
        inputs, targets = _beside(outputs, inputs, targets)
        return self.kind.judged(self._output(outputs), self._target(targets), inputs)

    def _output(self, outputs: Outputs) -> Any:
        return outputs if self.output is None or isinstance(outputs, Tensor) else outputs[self.output]

    def _target(self, targets: Targets) -> Any:
        if isinstance(targets, Tensor) or (isinstance(self.kind, Own) and self.target not in targets):
            return targets
        if self.target not in targets:
            raise DataError(
                f"there are no targets {self.target!r}", fix=f"The data has the targets {', '.join(targets) or 'none'}."
            )
        return targets[self.target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A sum of losses; each is the mean over the items of a batch.

    The means of parts of a batch are no parts of the whole mean where items are ignored or parts uneven. So a batch in
    parts (micro-batches, processes) is computed from sums: `counts` of all parts are added first, then each part gives
    its `share` of the loss, and shares and their gradients add up.

    With a teacher, `hard_terms` are the losses as they were without one.
    """

    terms: tuple[Term, ...]
    teacher: Teacher | None = None
    hard_terms: tuple[Term, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Objective:
        """The objective of a plain function of (output, target) that gives the mean over the samples."""
        return cls(terms=(Term(kind=Own.of(function)),))

    @property
    def hard(self) -> Objective:
        """The same without a teacher, with the weights as if there were none."""
        return self if self.teacher is None else Objective(terms=self.hard_terms)

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets that it needs."""
        return tuple(dict.fromkeys(term.target for term in self.terms if term.taught is None))

    @property
    def ignored(self) -> int:
        """The label of what does not count."""
        return next(
            (found for term in self.terms if (found := getattr(term.kind, "ignore_index", None)) is not None), IGNORED
        )

    def classes(self, shapes: Sequence[Sequence[int | None] | None]) -> int | None:
        """How many classes the targets tell apart, by the shapes of the outputs; None where it is not known.

        Several losses on labels must agree.
        """
        found = set()
        for term in self.terms:
            shape = shapes[term.output or 0] if term.taught is None else None
            if shape is not None:
                found.add(term.kind.classes(shape))
        return found.pop() if len(found) == 1 else None

    def __call__(self, outputs: Outputs, inputs: Inputs, targets: Targets) -> Tensor:
        """The loss of a whole batch: a scalar."""
        return self.share(outputs, inputs, targets, self.counts(inputs, targets))

    def counts(self, inputs: Inputs, targets: Targets) -> Tensor:
        """How many items each term has in a batch, float64 [terms]; from the data alone."""
        return torch.stack([term.count(inputs, targets).to(torch.float64) for term in self.terms])

    def totals(self, outputs: Outputs, inputs: Inputs, targets: Targets) -> Tensor:
        """The sum of each term over the items of a batch, [terms]."""
        inputs, targets = _beside(outputs, inputs, targets)
        taught: tuple[Tensor, ...] = ()
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(inputs)
        return torch.stack([term.total(outputs, inputs, targets, taught) for term in self.terms])

    def share(self, outputs: Outputs, inputs: Inputs, targets: Targets, counts: Tensor) -> Tensor:
        """What this batch gives to the loss of a larger one that has `counts` items: a scalar."""
        return self.weighed(self.totals(outputs, inputs, targets), counts)

    def weighed(self, totals: Tensor, counts: Tensor) -> Tensor:
        """The loss of sums and numbers; a term without items gives nothing."""
        scale = torch.tensor([term.weight for term in self.terms], dtype=torch.float64, device=counts.device)
        return (totals * (scale / counts.clamp(min=1)).to(totals)).sum()


def _beside(outputs: Outputs, inputs: Inputs, targets: Targets) -> tuple[Inputs, Targets]:
    """Inputs and targets on the device of the outputs."""
    device = (outputs if isinstance(outputs, Tensor) else outputs[0]).device
    moved = {name: tensor.to(device) for name, tensor in inputs.items()}
    if isinstance(targets, Tensor):
        return moved, targets.to(device)
    return moved, {name: tensor.to(device) for name, tensor in targets.items()}
