"""A model in float64, run by the standard's own reference: what a network gives without the rounding of float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.graph.runtime import Arrays

ROUNDING = 1e-2
"""Up to here a relative difference may be the rounding of float32, and is looked at in float64."""
_FLOAT, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


def outputs_in_double(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    """What the model gives when all that is float32 in it is float64, its inputs included.

    Raises NotImplementedError for an operator that the reference has not.
    """
    feed = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feed.items()}
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _FLOAT:
            value.type.tensor_type.elem_type = _DOUBLE
    for tensor in (*graph.initializer, *_tensors(graph)):
        if tensor.data_type == _FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == _FLOAT:
                attribute.i = _DOUBLE
    names = [value.name for value in graph.output]
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(wide).run(names, feed)
    return dict(zip(names, found, strict=True))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
