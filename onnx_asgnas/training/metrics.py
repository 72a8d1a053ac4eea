"""What a network is judged by on data that it did not train on: sums over batches, so that the figures are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.data import Split, Targets
from onnx_asgnas.training.data.checks import IGNORED
from onnx_asgnas.training.events import Event
from onnx_asgnas.training.losses import Objective, Outputs, Term, parse_list
from onnx_asgnas.training.losses.classes import softly_labelled
from onnx_asgnas.training.losses.kinds import Inputs, Own

_EVALUATION_BATCH = 500


def evaluation_batch(training_batch: int) -> int:
    """How many samples are evaluated at once: what training holds fits twice where nothing is kept for gradients."""
    return min(_EVALUATION_BATCH, 2 * training_batch)


Sums = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure made of sums.

    `sums` gives, of scores [M, C, …] and labels [M, …] or of values alike, a vector that is added up over batches;
    `value` the figure. `accuracy` marks a fraction of what is right.
    """

    name: str
    sums: Sums
    value: Callable[[Tensor], Tensor]
    accuracy: bool = False


_METRICS: dict[str, Metric] = {}


def register(name: str, value: Callable[[Tensor], Tensor], *, accuracy: bool = False) -> Callable[[Sums], Sums]:
    """Put the sums of a metric into the registry under a name, with what makes the figure of them."""

    def add(sums: Sums) -> Sums:
        _METRICS[name] = Metric(name, sums, value, accuracy)
        return sums

    return add


def metrics() -> tuple[str, ...]:
    """The names of all metrics, sorted."""
    return tuple(sorted(_METRICS))


def _ratio(sums: Tensor) -> Tensor:
    return sums[0] / sums[1]


def _mean_iou(sums: Tensor) -> Tensor:
    """Of the confusion matrix: the mean, over the classes that occur, of intersection over union."""
    confusion = sums.reshape(math.isqrt(len(sums)), -1)
    intersection = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return (intersection / union)[union > 0].mean()


@register("top1", _ratio, accuracy=True)
@register("pixel_accuracy", _ratio, accuracy=True)
def _top1(scores: Tensor, labels: Tensor) -> Tensor:
    return _right(scores, labels, 1)


@register("top5", _ratio)
def _top5(scores: Tensor, labels: Tensor) -> Tensor:
    return _right(scores, labels, 5)


@register("miou", _mean_iou)
def _confusion(scores: Tensor, labels: Tensor) -> Tensor:
    """How often label i was taken for class j, flat."""
    classes = scores.shape[1]
    labels = _hard(scores, labels)
    kept = (labels >= 0) & (labels < classes)
    pairs = labels[kept] * classes + scores.argmax(1)[kept]
    return torch.bincount(pairs, minlength=classes * classes)


@register("perplexity", lambda sums: _ratio(sums).exp())
def _surprise(scores: Tensor, labels: Tensor) -> Tensor:
    count = len(labels) if softly_labelled(scores, labels) else (labels != IGNORED).sum()
    total = functional.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
    return torch.stack([total.double(), torch.as_tensor(count, dtype=torch.float64, device=total.device)])


@register("mse", _ratio)
def _squares(output: Tensor, target: Tensor) -> Tensor:
    return _sum_and_number((output.double() - target.double()).square())


@register("mae", _ratio)
def _distances(output: Tensor, target: Tensor) -> Tensor:
    return _sum_and_number((output.double() - target.double()).abs())


@register("binary_accuracy", _ratio, accuracy=True)
def _binary(output: Tensor, target: Tensor) -> Tensor:
    return _sum_and_number((output > 0) == (target > 0.5))


def _sum_and_number(values: Tensor) -> Tensor:
    return torch.stack([values.sum().double(), values.new_tensor(values.numel(), dtype=torch.float64)])


def _right(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """How many labels are among the k largest of their scores, and how many there are; NaN is wrong."""
    labels = _hard(scores, labels)
    kept = labels != IGNORED
    found = scores.argmax(1, keepdim=True) if k == 1 else scores.topk(min(k, scores.shape[1]), dim=1).indices
    right = (found == labels.unsqueeze(1)).any(1) & kept & ~scores.isnan().any(1)
    return torch.stack([right.sum(), kept.sum()])


def _hard(scores: Tensor, labels: Tensor) -> Tensor:
    """The labels; of soft ones the likeliest."""
    return labels.argmax(1) if softly_labelled(scores, labels) else labels


@dataclass(slots=True)
class _Measure:
    """One metric on one term, and its sums so far; an optional one ends where data does not fit it."""

    name: str
    term: Term
    metric: Metric
    optional: bool
    sums: Tensor | None = None

    def update(self, outputs: Outputs, inputs: Inputs, targets: Targets) -> bool:
        try:
            scores, labels = self.term.judged(outputs, inputs, targets)
            found = self.metric.sums(scores, labels).to(torch.float64)
        except DataError:
            if not self.optional:
                raise
            return False
        self.sums = found if self.sums is None else self.sums + found
        return True


@dataclass(slots=True)
class Judge:
    """Several metrics at once over the batches of a split."""

    measures: list[_Measure] = field(default_factory=list)

    @classmethod
    def of(cls, objective: Objective, text: str = "") -> Judge:
        """The metrics that a text names (`top1,top5`, or `OUTPUT=top1`); without one those that fit the losses.

        Raises InputError for one that does not exist, or an output that no loss is on.
        """
        terms = objective.hard.terms
        chosen = [(term, name) for term in terms for name in term.kind.metrics]
        if text:
            chosen = [(_term(part.output, terms), part.spec.name) for part in parse_list(text)]
        several = len({term.name for term, _ in chosen}) > 1
        return cls(
            [
                _Measure(
                    f"{term.name}.{name}" if several else name,
                    term,
                    _metric(name),
                    optional=not text and isinstance(term.kind, Own),
                )
                for term, name in chosen
            ]
        )

    def update(self, outputs: Outputs, inputs: Inputs, targets: Targets) -> None:
        """Count a batch in; raises DataError where outputs and targets do not fit a metric."""
        self.measures = [measure for measure in self.measures if measure.update(outputs, inputs, targets)]

    def values(self) -> dict[str, float | None]:
        """The figures by name; None for what is no finite number."""
        return {m.name: _finite(m.metric.value(m.sums)) for m in self.measures if m.sums is not None}

    def accuracy(self) -> float | None:
        """The first figure that is a fraction of what is right; None where there is none."""
        values = self.values()
        return next((values[m.name] for m in self.measures if m.metric.accuracy and m.name in values), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a model gives on a split: the mean loss, metrics by name, and the accuracy among them (None: no labels)."""

    loss: float
    accuracy: float | None
    metrics: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, event: Event) -> Evaluation | None:
        """What an event of the training tells of the test data, None where it tells nothing."""
        if event.test_loss is None:
            return None
        return cls(loss=event.test_loss, accuracy=event.accuracy, metrics=event.metrics)


def evaluate(
    module: OnnxModule, split: Split, loss: Objective, metrics: str = "", batch_size: int = _EVALUATION_BATCH
) -> Evaluation:
    """Loss and metrics of a module on a split, in inference form; the module's mode is left as it was.

    A teacher has no part in it.
    """
    hard, judge = loss.hard, Judge.of(loss, metrics)
    totals = torch.zeros(len(hard.terms), dtype=torch.float64)
    counts = totals.clone()
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for inputs, targets in split.batches(batch_size):
                outputs = module(**inputs)
                totals += hard.totals(outputs, inputs, targets).to(totals)
                counts += hard.counts(inputs, targets).to(counts)
                judge.update(outputs, inputs, targets)
    finally:
        module.train(training)
    return Evaluation(loss=float(hard.weighed(totals, counts)), accuracy=judge.accuracy(), metrics=judge.values())


def _term(output: str | None, terms: Sequence[Term]) -> Term:
    """The loss whose output a metric looks at: of that name, or the first."""
    found = next((term for term in terms if output is None or term.name == output), None)
    if found is None:
        raise InputError(
            f"no loss is on an output {output!r}", fix=f"Those with a loss are {', '.join(t.name for t in terms)}."
        )
    return found


def _metric(name: str) -> Metric:
    if name not in _METRICS:
        raise InputError(f"there is no metric {name!r}", fix=f"Choose from: {', '.join(metrics())}.")
    return _METRICS[name]


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
