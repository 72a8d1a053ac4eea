"""Running a model wherever it runs: in onnxruntime node by node, else in ONNX's reference implementation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.runtime import run, session

NEWEST_OPSET, NEWEST_IR = 21, 10
"""What the training runtime loads; a newer model is tried under these numbers, since most operators did not change."""

Values = Mapping[str, Any]


class NotRunError(Exception):
    """No runtime at hand runs the model."""


class Runner:
    """Runs models of one kind: the first decides which runtime, the others follow, so that like is compared."""

    def __init__(self) -> None:
        self._reference = False

    def __call__(self, model: onnx.ModelProto, feeds: Iterable[Values]) -> list[list[Any]]:
        """The outputs in order for each set of inputs; raises NotRunError where nothing runs the model."""
        feeds = list(feeds)
        if not self._reference:
            try:
                made = session(_relabelled(model), threads=1)
                return [list(run(made, feed).values()) for feed in feeds]
            except ModelError:
                self._reference = True
        return in_reference(model, feeds)


def in_reference(model: onnx.ModelProto, feeds: Iterable[Values]) -> list[list[Any]]:
    """The outputs in order, by ONNX's own reference implementation; raises NotRunError."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(model)
            return [list(evaluator.run(None, dict(feed))) for feed in feeds]
    except Exception as error:  # it raises whatever numpy raises
        raise NotRunError(f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error


def _relabelled(model: onnx.ModelProto) -> onnx.ModelProto:
    newer = any(o.domain in ("", "ai.onnx") and o.version > NEWEST_OPSET for o in model.opset_import)
    if not newer and model.ir_version <= NEWEST_IR:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(copy.ir_version, NEWEST_IR)
    for opset in copy.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(opset.version, NEWEST_OPSET)
    return copy


def distance(one: Any, two: Any) -> float:
    """The largest difference over the largest value; NaN equals NaN in the same place, else infinite."""
    if isinstance(one, list | tuple):
        if not isinstance(two, list | tuple) or len(one) != len(two):
            return np.inf
        return max(map(distance, one, two), default=0.0)
    if one is None or two is None:
        return 0.0 if one is two else np.inf
    first, second = np.asarray(one), np.asarray(two)
    if first.shape != second.shape or first.dtype != second.dtype:
        return np.inf
    if first.dtype.kind not in "fiub" and first.dtype.kind != "V":
        return 0.0 if np.array_equal(first, second) else np.inf
    return _apart(first.astype(np.float64), second.astype(np.float64))


def _apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    finite = np.isfinite(first)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True) or not np.isfinite(second[finite]).all():
        return np.inf
    largest = np.abs(first - second, where=finite, out=np.zeros_like(first)).max(initial=0.0)
    return float(largest / max(np.abs(first[finite]).max(initial=0.0), 1e-30)) if largest else 0.0
