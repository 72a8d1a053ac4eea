"""How far two results are apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def relative_difference(reference: Any, other: Any) -> float:
    """The largest absolute difference over the largest absolute value of the reference.

    Results are arrays, or lists and dicts of them (an ONNX sequence or map). 0 where both are equal, all zero included;
    infinity where the two cannot be compared (another type, dtype or shape), where NaN is in either, where one is
    infinite and the other is not, and where only the reference is all zero.
    """
    if explain_mismatch(reference, other):
        return math.inf
    pairs = [_array_difference(a, b) for a, b in zip(_arrays(reference), _arrays(other), strict=True)]
    return max(pairs, default=0.0)


def explain_mismatch(reference: Any, other: Any) -> str:
    """Why two results cannot be compared number by number: "float32[2, 10] against float32[2, 9]"; "" if they can."""
    first, second = _describe(reference), _describe(other)
    return f"{first} against {second}" if first != second else ""


def have_same_types(reference: Any, other: Any) -> bool:
    """Do two results hold the same element types, whatever their shapes."""
    return {a.dtype for a in _arrays(reference)} == {a.dtype for a in _arrays(other)}


def has_nan(value: Any) -> bool:
    """Is NaN anywhere in a result."""
    return any(a.dtype.kind in "fc" and bool(np.isnan(a).any()) for a in _arrays(value))


def is_all_zero(value: Any) -> bool:
    """Is a result zero throughout."""
    return all(a.dtype.kind not in "OUS" and not a.any() for a in _arrays(value))


def _array_difference(reference: NDArray[Any], other: NDArray[Any]) -> float:
    if reference.dtype.kind in "OUS":
        return 0.0 if np.array_equal(reference, other) else math.inf
    first, second = reference.astype(np.float64), other.astype(np.float64)
    if np.isnan(first).any() or np.isnan(second).any():  # max() would pass over a NaN
        return math.inf
    apart = first != second  # infinities of one sign are equal, and have no difference
    largest = float(np.abs(first[apart] - second[apart]).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    scale = float(np.abs(first[np.isfinite(first)]).max(initial=0.0))
    return largest / scale if scale > 0.0 else math.inf


def _arrays(value: Any) -> list[NDArray[Any]]:
    if isinstance(value, dict):
        return [array for key in sorted(value) for array in _arrays(value[key])]
    if isinstance(value, list | tuple):
        return [array for item in value for array in _arrays(item)]
    return [np.asarray(value)]


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_describe(value[key])}' for key in sorted(value))}}}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_describe, value))})"
    array = np.asarray(value)
    return f"{array.dtype}{list(array.shape)}"
