"""What is lost on one output: each kind as a sum over items and their number, so that parts of a batch add up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.training.data.checks import IGNORED, LABEL
from onnx_asgnas.training.losses.classes import class_axis, classes_second, softly_labelled

Outputs: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""What a network gives: a tensor, or a tuple where it has several outputs."""
Inputs: TypeAlias = "Mapping[str, Tensor]"


class Kind(Protocol):
    """A loss on one output; the loss of a batch is `total` / `count`.

    `metrics` are the names of those that fit it, the best first.
    """

    metrics: ClassVar[tuple[str, ...]]

    def target(self, inputs: Sequence[str]) -> str:
        """The name of its targets, where the user gives none."""
        ...

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """How many classes an output of this shape tells apart at most; None where targets are no labels."""
        ...

    def count(self, target: Tensor, inputs: Inputs) -> Tensor:
        """How many items the targets have (a scalar); known before the network has run."""
        ...

    def total(self, output: Any, target: Tensor, inputs: Inputs) -> Tensor:
        """The sum over the items."""
        ...

    def judged(self, output: Any, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What metrics see: scores [M, C, …] and labels [M, …], with IGNORED in some; or outputs and values alike."""
        ...


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross entropy of logits [N, C], [N, C, …] or [N, T, C] with labels of the other axes, or with soft labels.

    Soft labels are probabilities in the shape of the logits. Of three axes the last is that of the classes where both
    could be (tokens), of four the second (pixels); `axis` says otherwise.
    """

    label_smoothing: float = 0.0
    ignore_index: int = IGNORED
    axis: int | None = None
    metrics: ClassVar[tuple[str, ...]] = ("top1",)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}", fix="Give a fraction between 0 and 1.")

    def target(self, inputs: Sequence[str]) -> str:
        """See Kind."""
        return LABEL

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """See Kind; of three axes either may be that of the classes."""
        if len(shape) == 3 and self.axis is None:
            return max(shape[1], shape[2]) if shape[1] is not None and shape[2] is not None else None
        return shape[class_axis(len(shape), self.axis)] if len(shape) > 1 else None

    def count(self, target: Tensor, inputs: Inputs) -> Tensor:
        """The labels that are not ignored."""
        if target.is_floating_point():
            axis = class_axis(target.ndim, self.axis)
            return torch.tensor(target.numel() / max(target.shape[axis], 1))
        return (target != self.ignore_index).sum()

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind."""
        scores, labels = self.judged(output, target, inputs)
        return functional.cross_entropy(
            scores, labels, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def judged(self, output: Tensor, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """See Kind."""
        scores, labels = classes_second(output, target, self.axis)
        if self.ignore_index != IGNORED and not softly_labelled(scores, labels):
            labels = labels.masked_fill(labels == self.ignore_index, IGNORED)
        return scores, labels


@dataclass(frozen=True, slots=True)
class PixelCrossEntropy(CrossEntropy):
    """Cross entropy of logits [N, C, h, w] with a map of labels [N, H, W].

    Where the sizes differ the logits are resampled to the map's (bilinear, corners not aligned), which networks for
    segmentation are made for.
    """

    ignore_index: int = 255
    metrics: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy")

    def judged(self, output: Tensor, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """See Kind."""
        if output.ndim != 4 or target.ndim < 3:
            raise DataError(
                f"an output of shape {list(output.shape)} holds no logits of pixels for targets of shape "
                f"{list(target.shape)}",
                fix="It takes an output [N, classes, h, w] and targets [N, H, W].",
            )
        if output.shape[2:] != target.shape[-2:]:
            output = functional.interpolate(output, size=target.shape[-2:], mode="bilinear", align_corners=False)
        return super(PixelCrossEntropy, self).judged(output, target, inputs)


@dataclass(frozen=True, slots=True)
class NextToken:
    """Cross entropy of the logits [N, T, C] at each position with the id at the next one, [N, T].

    Targets are the ids that the network reads, unless others are named. Left out is what has the id `ignore_index`, and
    what the input `mask` is zero for.
    """

    label_smoothing: float = 0.0
    ignore_index: int = IGNORED
    mask: str = "attention_mask"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "top1")

    def target(self, inputs: Sequence[str]) -> str:
        """The input of ids."""
        names = [name for name in ("input_ids", "ids", "tokens") if name in inputs] or list(inputs)
        if len(names) > 1 and names[0] != "input_ids":
            raise InputError(
                f"next_token cannot tell which of the inputs {', '.join(inputs)} holds the ids",
                fix="Say it: --loss next_token?target=NAME.",
            )
        return names[0] if names else LABEL

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """See Kind."""
        return shape[-1] if shape else None

    def count(self, target: Tensor, inputs: Inputs) -> Tensor:
        """The tokens that are to be predicted."""
        return (self._next(target, inputs) != IGNORED).sum()

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind."""
        scores, labels = self.judged(output, target, inputs)
        return functional.cross_entropy(
            scores, labels, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def judged(self, output: Tensor, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """See Kind."""
        if output.ndim != 3 or output.shape[:2] != target.shape:
            raise DataError(
                f"an output of shape {list(output.shape)} holds no logits for ids of shape {list(target.shape)}",
                fix="It takes an output [N, T, vocabulary] and ids [N, T].",
            )
        return output[:, :-1].flatten(0, 1), self._next(target, inputs).flatten()

    def _next(self, ids: Tensor, inputs: Inputs) -> Tensor:
        """The id that follows each position, [N, T - 1]; IGNORED where none is to be predicted."""
        labels = ids[:, 1:].long()
        left_out = labels == self.ignore_index
        mask = inputs.get(self.mask)
        if mask is None and self.mask != "attention_mask":
            raise DataError(f"there is no mask {self.mask!r}", fix=f"The inputs are {', '.join(inputs)}.")
        if mask is not None and mask.shape == ids.shape:
            left_out = left_out | (mask[:, 1:] == 0) | (mask[:, :-1] == 0)
        return labels.masked_fill(left_out, IGNORED)


@dataclass(frozen=True, slots=True)
class _Values:
    """A loss between an output and targets of the same shape, summed over all elements."""

    metrics: ClassVar[tuple[str, ...]] = ()

    def target(self, inputs: Sequence[str]) -> str:
        """See Kind."""
        return LABEL

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """See Kind."""
        return None

    def count(self, target: Tensor, inputs: Inputs) -> Tensor:
        """The number of elements."""
        return torch.tensor(target.numel())

    def judged(self, output: Tensor, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The output and its targets, both [N, …]; a last axis of size 1 may be missing in one of them."""
        if output.shape != target.shape and output.numel() == target.numel() and output.shape[:1] == target.shape[:1]:
            thin = [shape[:-1] if shape[-1:] == (1,) else shape for shape in (output.shape, target.shape)]
            output = output.reshape(target.shape) if thin[0] == thin[1] else output
        if output.shape != target.shape:
            raise DataError(
                f"targets of shape {list(target.shape)} do not fit the output of shape {list(output.shape)}",
                fix="Give one value for each element of the output.",
            )
        return output, target.to(output.dtype)


@dataclass(frozen=True, slots=True)
class MeanSquaredError(_Values):
    """The mean squared difference."""

    metrics: ClassVar[tuple[str, ...]] = ("mse",)

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind."""
        return functional.mse_loss(*self.judged(output, target, inputs), reduction="sum")


@dataclass(frozen=True, slots=True)
class MeanAbsoluteError(_Values):
    """The mean absolute difference."""

    metrics: ClassVar[tuple[str, ...]] = ("mae",)

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind."""
        return functional.l1_loss(*self.judged(output, target, inputs), reduction="sum")


@dataclass(frozen=True, slots=True)
class BinaryCrossEntropy(_Values):
    """Binary cross entropy of logits with probabilities or zeros and ones, each element for itself."""

    metrics: ClassVar[tuple[str, ...]] = ("binary_accuracy",)

    def total(self, output: Tensor, target: Tensor, inputs: Inputs) -> Tensor:
        """See Kind."""
        return functional.binary_cross_entropy_with_logits(*self.judged(output, target, inputs), reduction="sum")


@dataclass(frozen=True, slots=True)
class Own:
    """The user's function of (output, target), or of (output, target, inputs), which gives the mean over samples."""

    function: Callable[..., Any]
    takes_inputs: bool = False
    metrics: ClassVar[tuple[str, ...]] = ("top1",)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Own:
        """A function, with its third parameter found if it is called `inputs`."""
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # some builtins have none
            parameters = {}  # type: ignore[assignment]
        return cls(function, "inputs" in parameters)

    def target(self, inputs: Sequence[str]) -> str:
        """See Kind."""
        return LABEL

    def classes(self, shape: Sequence[int | None]) -> int | None:
        """See Kind."""
        return None

    def count(self, target: Tensor | Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """The number of samples."""
        first = target if isinstance(target, Tensor) else next(iter(target.values()))
        return torch.tensor(len(first))

    def total(self, output: Outputs, target: Tensor, inputs: Inputs) -> Tensor:
        """The mean that the function gives, as often as there are samples."""
        mean = self.function(output, target, inputs=inputs) if self.takes_inputs else self.function(output, target)
        if not isinstance(mean, Tensor) or mean.numel() != 1:
            what = f"a tensor of shape {list(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
            raise InputError(f"the loss gives {what}", fix="Give a scalar tensor: the mean over the samples.")
        return mean.reshape(()) * self.count(target, inputs).to(mean.device)

    def judged(self, output: Outputs, target: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Scores and labels, where they are such."""
        return classes_second(output if isinstance(output, Tensor) else output[0], target, None)


KINDS: dict[str, Callable[..., Kind]] = {
    "cross_entropy": CrossEntropy,
    "pixel_cross_entropy": PixelCrossEntropy,
    "next_token": NextToken,
    "mse": MeanSquaredError,
    "l1": MeanAbsoluteError,
    "bce_with_logits": BinaryCrossEntropy,
}
