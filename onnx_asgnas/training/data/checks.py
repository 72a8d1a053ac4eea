"""Does the data fit the model: names, shapes, types, labels in range, no NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError, NonFiniteError
from onnx_asgnas.training.data.dataset import Array, ModelInput, describe

LABEL = "label"
"""What targets are called where nobody says otherwise."""
IGNORED = -100
"""The label of what does not count, as torch's cross entropy has it."""


def fit_inputs(arrays: Mapping[str, Array], wanted: Sequence[ModelInput], *, where: str) -> dict[str, Array]:
    """The arrays that the model reads, in its element types; `where` names the data in messages.

    Raises DataError, showing what the data has and what the model reads, for a missing array, a shape that the model
    refuses, arrays of different lengths, or an element type that cannot be turned into the model's; NonFiniteError,
    with the place, for NaN or infinity.
    """
    has = "; ".join(describe(name, array.shape, array.dtype) for name, array in arrays.items()) or "nothing"
    reads = "; ".join(map(str, wanted))
    for want in wanted:
        array = arrays.get(want.name)
        problem = f"there is no array {want.name!r}" if array is None else _misfit(array, want)
        if problem:
            raise DataError(
                f"{where} does not fit the model: {problem}",
                fix=f"The data has {has}; the model reads {reads}.",
                array=want.name,
            )
    fitting = {want.name: arrays[want.name].astype(want.dtype, copy=False) for want in wanted}
    lengths = {name: len(array) for name, array in fitting.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the arrays of {where} differ in length: {lengths}", fix="Give one entry per sample in each.")
    for name, array in fitting.items():
        require_finite(array, name=name, where=where)
    return fitting


def fit_targets(
    targets: Array, *, samples: int, classes: int | None, where: str, name: str = "label", ignored: int = IGNORED
) -> Array:
    """Labels as int64, other targets as float32.

    Raises DataError when their number is not that of the samples, or when a label is not below `classes`, the width of
    the model's output (None: not known, or no classification), nor `ignored`; NonFiniteError for NaN or infinity.
    """
    if targets.ndim == 0 or len(targets) != samples:
        count = "one value" if targets.ndim == 0 else f"{len(targets)} values"
        raise DataError(
            f"{where} has {samples} samples, but {name!r} has {count}", fix="Give one target per sample.", array=name
        )
    if targets.dtype.kind == "f":
        if classes is not None and targets.ndim == 1:
            raise DataError(
                f"{name!r} of {where} has the type {targets.dtype.name}, labels are integers",
                fix=f"Save it as {name}.astype('int64').",
                array=name,
            )
        require_finite(targets, name=name, where=where)
        return targets.astype(np.float32, copy=False)
    if targets.dtype.kind not in "iub":
        raise DataError(
            f"{name!r} of {where} has the type {targets.dtype.name}", fix="Give integer labels or floats.", array=name
        )
    labels: NDArray[np.int64] = targets.astype(np.int64, copy=False)
    if classes is not None:
        _require_range(labels, classes, ignored, name=name, where=where)
    return labels


def require_finite(array: Array, *, name: str, where: str) -> None:
    """Raise NonFiniteError, with the first place, where the array holds NaN or infinity."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise NonFiniteError(
        f"{where} has {array[place]} in {name!r} at index {list(place)}",
        fix="Remove or repair that sample.",
        array=name,
        index=place,
    )


def _misfit(array: Array, want: ModelInput) -> str:
    """Why the model refuses an array, empty where it does not."""
    if array.ndim != len(want.shape):
        return f"{want.name!r} has {array.ndim} axes, {len(want.shape)} are read"
    for axis, (size, wanted) in enumerate(zip(array.shape, want.shape, strict=True)):
        if axis > 0 and wanted is not None and size != wanted:
            return f"{want.name!r} has the size {size} along axis {axis}, {wanted} is read"
    if not np.can_cast(array.dtype, want.dtype, casting="same_kind"):
        return f"{want.name!r} is {array.dtype.name}, {want.dtype.name} is read"
    return ""


def _require_range(labels: NDArray[np.int64], classes: int, ignored: int, *, name: str, where: str) -> None:
    wrong = np.argwhere(((labels < 0) | (labels >= classes)) & (labels != ignored))
    if len(wrong) == 0:
        return
    place = tuple(int(i) for i in wrong[0])
    raise DataError(
        f"{where} has the label {labels[place]} in {name!r} at index {list(place)}, "
        f"the model tells {classes} classes apart ({len(wrong)} such labels)",
        fix=f"Labels go from 0 to {classes - 1}; {ignored} does not count (--loss NAME?ignore_index=… says otherwise).",
        array=name,
        index=place,
    )
