"""Fixed parts of a data set: balanced subsets, and what is held out for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.dataset import Array

Indices = NDArray[np.intp]

_SEED = 0
"""Parts are the same in every run: what varies with a run's seed is the training, not the data."""


def balanced_subset(targets: Array, count: int) -> Indices:
    """`count` sample indices, ascending, with as many of each label as of any other (or one more).

    Drawn without replacement by a fixed seed; where targets are no labels (floats, or more than one axis), drawn from
    all. Raises DataError when there are not so many.
    """
    if targets.ndim != 1 or targets.dtype.kind not in "iub":
        if count > len(targets):
            raise _too_few(count, f"{len(targets)} samples")
        return np.sort(np.random.default_rng(_SEED).permutation(len(targets))[:count])
    labels, number = np.unique(targets, return_counts=True)
    quota = np.full(len(labels), count // max(len(labels), 1))
    quota[: count % max(len(labels), 1)] += 1
    if (quota > number).any():
        short = int(np.argmax(quota > number))
        raise _too_few(count, f"{number[short]} samples of label {labels[short]}")
    shuffled = np.random.default_rng(_SEED).permutation(len(targets))
    by_label = shuffled[np.argsort(targets[shuffled], kind="stable")]
    starts = np.cumsum(number) - number
    return np.sort(np.concatenate([by_label[s : s + q] for s, q in zip(starts, quota, strict=True)]))


def choose_parts(
    targets: Array, *, train: int | None, validation: int | float | None
) -> tuple[Indices | slice, Indices | None]:
    """Which samples of the training data train, and which are held out for validation (None: none).

    `validation` is a number of samples, or below 1 their fraction. It is taken first, so that the held-out part is
    the same whatever the size of the training part. Raises DataError for a number that is no such.
    """
    for name, value in (("train", train), ("validation", validation)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        fraction = name == "validation" and isinstance(value, float) and 0 < value < 1
        if value is not None and not (whole or fraction):
            raise DataError(f"{name} is {value!r}", fix=f"Give a number of samples, as in ?{name}=1000.", argument=name)
    held = None
    rest: Indices | slice = slice(None)
    if validation is not None:
        count = round(validation * len(targets)) if isinstance(validation, float) else validation
        held = balanced_subset(targets, max(count, 1))
        rest = np.setdiff1d(np.arange(len(targets)), held, assume_unique=True)
        if len(rest) == 0:
            raise _too_few(count + 1, f"{len(targets)} samples")
    if train is not None:
        chosen = balanced_subset(targets[rest], train)
        rest = chosen if isinstance(rest, slice) else rest[chosen]
    return rest, held


def stratified(targets: Array, fraction: Any, seed: int = 0) -> tuple[Indices, Indices]:
    """Sample indices to train with, and `fraction` of each label, at least one, to hold out; drawn by `seed`.

    Raises DataError for a fraction out of range, and for a label of which nothing would be left.
    """
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise DataError(
            f"validation is {fraction!r}", fix="Give a fraction, as in ?validation=0.1.", argument="validation"
        )
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    by_label = shuffled[np.argsort(targets[shuffled], kind="stable")]
    labels, number = np.unique(targets, return_counts=True)
    taken = np.maximum(np.rint(fraction * number).astype(int), 1)
    if (taken >= number).any():
        short = int(np.argmax(taken >= number))
        raise _too_few(int(taken[short]) + 1, f"{number[short]} samples of label {labels[short]}")
    place = np.arange(len(targets)) - np.repeat(np.cumsum(number) - number, number)
    held = place < np.repeat(taken, number)
    return np.sort(by_label[~held]), np.sort(by_label[held])


def _too_few(count: int, available: str) -> DataError:
    return DataError(f"{count} samples are asked for, but there are only {available}", fix="Ask for fewer.")
