"""Resize as linear algebra: along each axis that changes, the matrix that the operator multiplies by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_asgnas.training.engines.runtime import import_onnxruntime

_PROBE = 6
"""Size at which an open axis is looked at."""


@dataclass(frozen=True, slots=True)
class AxisMap:
    """What Resize does along one axis: y = x @ matrix, of shape [old size, new size].

    `copies` is how often it repeats every value, 0 where that is not what it does. A matrix over an axis of open size
    was taken at a size of its own, and only its `copies` mean anything.
    """

    matrix: NDArray[np.float32]
    copies: int


def axis_map(
    node: onnx.NodeProto, opset: int, *, size: int | None, scale: float | None, new_size: int | None
) -> AxisMap:
    """Run the operator itself on the identity, once along one axis, given by its scale or by its new size.

    The other attributes of the node (mode, coordinate transformation, rounding, antialias, ...) are kept as they are.
    """
    old = _PROBE if size is None else size
    kept = [a for a in node.attribute if a.name not in ("axes", "keep_aspect_ratio_policy")]
    by_scale = scale is not None
    how = ["", "scales"] if by_scale else ["", "", "sizes"]
    resize = helper.make_node("Resize", ["x", *how], ["y"])
    resize.attribute.extend(kept)
    value: NDArray[Any] = np.array([1, scale], np.float32) if by_scale else np.array([old, new_size], np.int64)
    graph = helper.make_graph(
        [resize],
        "resize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [old, old])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [old, None])],
        [onnx.numpy_helper.from_array(value, how[-1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    matrix: NDArray[np.float32] = session.run(None, {"x": np.eye(old, dtype=np.float32)})[0]
    copies, rest = divmod(matrix.shape[1], old)
    exact = not rest and np.array_equal(matrix, np.repeat(np.eye(old, dtype=np.float32), copies, axis=1))
    return AxisMap(matrix, copies if exact else 0)
