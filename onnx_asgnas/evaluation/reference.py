"""A model in float64, run by the standard's own reference: what a network gives without the rounding of float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.evaluation.half_precision import all_nodes, retyped
from onnx_asgnas.graph.runtime import Arrays

_ROUNDING = 1e-2
_PICKS_BY_VALUE = frozenset({"ArgMax", "ArgMin", "Compress", "NonMaxSuppression", "NonZero", "TopK", "Unique"})


def may_be_rounding(difference: float, model: onnx.ModelProto) -> bool:
    """May the rounding of float32 explain this relative difference, so that float64 has to say.

    It does up to 1e-2 in a deep network. In one that picks by value, as detectors do, two scores that are nearly equal
    change places, and the difference can be anything.
    """
    return difference <= _ROUNDING or any(node.op_type in _PICKS_BY_VALUE for node in all_nodes(model.graph))


def outputs_in_double(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    """What the model gives when all that is float32 in it is float64, its inputs included.

    Raises NotImplementedError for an operator that the reference has not.
    """
    feed = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feed.items()}
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(retyped(model, {TensorProto.FLOAT}, TensorProto.DOUBLE)).run(names, feed)
    return dict(zip(names, found, strict=True))
