"""Scores of classes and the labels that go with them, whatever the axis of the classes."""

from __future__ import annotations

from torch import Tensor

from onnx_asgnas.errors import DataError


def class_axis(ndim: int, axis: int | None) -> int:
    """The axis of the classes in scores of so many axes: the last of three (tokens), else the second."""
    if axis is not None:
        return axis % ndim if -ndim <= axis < ndim else 1
    return ndim - 1 if ndim == 3 else min(1, ndim - 1)


def softly_labelled(scores: Tensor, target: Tensor) -> bool:
    """Are the targets probabilities of classes, in the shape of the scores?"""
    return target.is_floating_point() and target.shape == scores.shape


def classes_second(output: Tensor, target: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Scores [M, C, …] and their labels [M, …], or soft labels in the shape of the scores.

    Raises DataError where the shapes fit in no way.
    """
    at = _axis(output, target, axis)
    soft = softly_labelled(output, target)
    if at == 1:
        return output, target
    if at == output.ndim - 1:
        return output.flatten(0, -2), target.flatten(0, -2) if soft else target.flatten()
    return output.movedim(at, 1), target.movedim(at, 1) if soft else target


def _axis(output: Tensor, target: Tensor, axis: int | None) -> int:
    first: int = class_axis(output.ndim, axis)
    if softly_labelled(output, target) and output.ndim > 1:
        return first
    others = () if axis is not None else (1, output.ndim - 1)
    if not target.is_floating_point():
        candidates: tuple[int, ...] = (first, *others)
        for at in dict.fromkeys(candidates):
            if output.ndim > 1 and (*output.shape[:at], *output.shape[at + 1 :]) == tuple(target.shape):
                return at
    kind = "targets" if target.is_floating_point() else "labels"
    raise DataError(
        f"an output of shape {list(output.shape)} gives no class for {kind} of shape {list(target.shape)}",
        fix="Labels are integers [N] for an output [N, classes], or have its other axes (--loss cross_entropy?axis=A "
        "says which one is that of the classes); maps of another size take --loss pixel_cross_entropy.",
    )
