"""A model in float64, run by the standard's own reference: what a network gives without the rounding of float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.evaluation.half_precision import retyped
from onnx_asgnas.graph.runtime import Arrays

ROUNDING = 1e-2
"""Up to here a relative difference may be the rounding of float32, and is looked at in float64."""


def outputs_in_double(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    """What the model gives when all that is float32 in it is float64, its inputs included.

    Raises NotImplementedError for an operator that the reference has not.
    """
    feed = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feed.items()}
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(retyped(model, {TensorProto.FLOAT}, TensorProto.DOUBLE)).run(names, feed)
    return dict(zip(names, found, strict=True))
