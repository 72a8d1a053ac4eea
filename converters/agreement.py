"""Does an exported model give what its source gives?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.errors import ConversionError, ModelError
from onnx_asgnas.graph.runtime import run, session

TOLERANCE = 1e-4
"""Largest |source - ONNX| over the largest |source| that a float32 export may have."""

Array = NDArray[np.generic]


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The model's outputs in onnxruntime on one thread, with its graph optimisations off.

    Raises PackageError without an onnxruntime, ConversionError when it refuses the model or the data.
    """
    try:
        return list(run(session(model, threads=1), feeds).values())
    except ModelError as problem:
        raise ConversionError(
            f"onnxruntime cannot run the exported model: {problem.message}",
            fix="A dimension that the network has baked in must be a number in --input, not a name.",
        ) from problem


def largest_difference(expected: Sequence[Array], got: Sequence[Array], names: Sequence[str]) -> float:
    """The largest |expected - got| over the largest |expected|, over outputs; infinity where only one is finite.

    Raises ConversionError for another number of outputs, another shape, or a difference above TOLERANCE.
    """
    if len(expected) != len(got):
        raise ConversionError(f"the export has {len(got)} outputs, its source has {len(expected)}", fix=_REPORT)
    worst = 0.0
    for want, have, name in zip(expected, got, names, strict=True):
        if want.shape != have.shape:
            raise ConversionError(
                f"output {name!r} has the shape {list(have.shape)}, its source gives {list(want.shape)}",
                fix=_REPORT,
                tensor=name,
            )
        difference = _relative_difference(want, have)
        if not difference <= TOLERANCE:
            raise ConversionError(
                f"output {name!r} differs from its source by {difference:.2e} (relative; {TOLERANCE:.0e} is allowed)",
                fix="Is the module deterministic in eval mode, and free of branches on its data?",
                tensor=name,
                difference=difference,
            )
        worst = max(worst, difference)
    return worst


def _relative_difference(want: Array, have: Array) -> float:
    if want.size == 0:
        return 0.0
    a, b = want.astype(np.float64), have.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], b[finite]
    if not np.isfinite(b).all():
        return float("inf")
    largest = float(np.abs(a).max(initial=0.0))
    return float(np.abs(a - b).max(initial=0.0)) / (largest or 1.0)


_REPORT = "The exporter has changed the network: please report the module."
