"""Resize and AveragePool as linear algebra: along each axis they are one matrix, found by running the operator itself.

Neither trains as it is: the runtime has no gradient kernel for Resize on the CPU, and its gradient of AveragePool ends
the process where the batch size is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_asgnas.graph.packages import import_onnxruntime
from onnx_asgnas.training.lowering.rewriting import Rewriting, attribute, explicit_pads, refusal, rewrite

_PROBE = 6
"""Size at which an open axis is looked at."""


@dataclass(frozen=True, slots=True)
class AxisMap:
    """What an operator does along one axis: y = x @ matrix, of shape [old size, new size].

    `copies` is how often it repeats every value, 0 where that is not what it does. A matrix over an axis of open size
    was taken at a size of its own, and only its `copies` mean anything.
    """

    matrix: NDArray[np.float32]
    copies: int = 0


def resize_along(
    attributes: Sequence[onnx.AttributeProto],
    opset: int,
    *,
    size: int | None,
    scale: float | None = None,
    new_size: int | None = None,
) -> AxisMap:
    """A Resize with these attributes along one axis, given by its scale or by its new size."""
    old = _PROBE if size is None else size
    by_scale = scale is not None
    how = ["", "scales"] if by_scale else ["", "", "sizes"]
    value: NDArray[Any] = np.array([1, scale], np.float32) if by_scale else np.array([old, new_size], np.int64)
    resize = helper.make_node("Resize", ["x", *how], ["y"])
    resize.attribute.extend(a for a in attributes if a.name not in ("axes", "keep_aspect_ratio_policy"))
    matrix = _matrix_of(resize, (old,), old, opset, numpy_helper.from_array(value, how[-1]))
    copies, rest = divmod(matrix.shape[1], old)
    exact = not rest and np.array_equal(matrix, np.repeat(np.eye(old, dtype=np.float32), copies, axis=1))
    return AxisMap(matrix, copies if exact else 0)


def average_pool_along(attributes: dict[str, Any], opset: int, *, size: int) -> AxisMap:
    """An AveragePool with these attributes, each of which speaks of one axis, along that axis."""
    return AxisMap(_matrix_of(helper.make_node("AveragePool", ["x"], ["y"], **attributes), (size, 1), size, opset))


def _matrix_of(
    node: onnx.NodeProto, outer: tuple[int, ...], size: int, opset: int, *constants: onnx.TensorProto
) -> NDArray[np.float32]:
    """What a node gives for the identity: its inputs are the rows, under as many outer axes as it needs."""
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*outer, size])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [*outer, None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = np.eye(size, dtype=np.float32).reshape(*outer, size)
    result: NDArray[np.float32] = session.run(None, {"x": rows})[0]
    return result.reshape(size, -1)


@rewrite("Resize")
def rewrite_resize(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Resize has no gradient kernel on the CPU. It is linear and separable: one matrix along each axis.

    A whole number of copies of every value along an inner axis is a Concat, which needs no size and is faster: 0.36 ms
    for [64,8,14,14] to twice the size, forward and backward, against 0.42 by two matrices and 3.1 by Expand.
    """
    sizes = graph.sizes(node.input[0], node, "interpolation")
    data = node.input[0]
    for axis, along in _resized_axes(node, graph, sizes).items():
        if sizes[axis] is None and not along.copies:
            raise refusal(
                node, f"the size of axis {axis} is open and it does not repeat values a whole number of times"
            )
        data = _resample(data, axis, along, sizes, node, graph)
        sizes[axis] = None if sizes[axis] is None else along.matrix.shape[1]
    graph.emit("Identity", [data], like=node, output=node.output[0])


def _resized_axes(node: onnx.NodeProto, graph: Rewriting, sizes: list[int | None]) -> dict[int, AxisMap]:
    if attribute(node, "coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise refusal(node, "it crops")
    if attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise refusal(node, "it keeps the aspect ratio")
    axes = [axis % len(sizes) for axis in attribute(node, "axes", range(len(sizes)))]
    scales = node.input[2] if len(node.input) > 2 else ""
    opset = graph.trace.opsets[""]
    found = {}
    if scales:
        for axis, scale in zip(axes, graph.fixed(scales, node, "scale").tolist(), strict=True):
            if scale != 1:
                found[axis] = resize_along(node.attribute, opset, size=sizes[axis], scale=scale)
        return found
    result = graph.sizes(node.output[0], node, "size")
    for axis in axes:
        old, new = sizes[axis], result[axis]
        if old is None or new is None:
            if not _keeps_size(node, graph, axis):
                raise refusal(node, f"the size of axis {axis} is open, and the new one is given as a number")
        elif old != new:
            found[axis] = resize_along(node.attribute, opset, size=old, new_size=new)
    return found


def _keeps_size(node: onnx.NodeProto, graph: Rewriting, axis: int) -> bool:
    before, after = graph.trace.sizes(node.input[0]), graph.trace.sizes(node.output[0])
    return all(old and new and old[axis] == new[axis] for old, new in zip(before, after, strict=True))


def _resample(
    data: str, axis: int, along: AxisMap, sizes: Sequence[int | None], node: onnx.NodeProto, graph: Rewriting
) -> str:
    """Emit x @ matrix along one axis; `sizes` are those before it."""
    last = len(sizes) - 1
    by_copies = bool(along.copies) and (axis < last or sizes[axis] is None)
    out_of_reach = None in sizes[axis + 1 :] if by_copies else axis < last - 1
    if out_of_reach:
        swap = list(range(len(sizes)))
        swap[axis], swap[last] = last, axis
        turned = graph.emit("Transpose", [data], like=node, perm=swap)
        turned = _resample(turned, last, along, [sizes[i] for i in swap], node, graph)
        return graph.emit("Transpose", [turned], like=node, perm=swap)
    if by_copies:
        inner = graph.emit("Unsqueeze", [data, graph.constant([axis + 1], like=node)], like=node)
        copies = graph.emit("Concat", [inner] * along.copies, like=node, axis=axis + 1)
        shape = graph.constant([0] * axis + [-1, *(size or 0 for size in sizes[axis + 1 :])], like=node)
        return graph.emit("Reshape", [copies, shape], like=node)
    if axis == last:
        return graph.emit("MatMul", [data, graph.constant(along.matrix, like=node)], like=node)
    return graph.emit("MatMul", [graph.constant(along.matrix.T.copy(), like=node), data], like=node)


@rewrite("AveragePool")
def rewrite_average_pool(node: onnx.NodeProto, graph: Rewriting) -> None:
    """AveragePool: one matrix along each axis, or over an axis of open size a Conv of each channel by itself.

    The runtime's own gradient takes the batch size from the graph, and divides by zero where it is open: that ends the
    process.
    """
    sizes = graph.sizes(node.input[0], node, "window")
    kernel = attribute(node, "kernel_shape")
    steps = {name: attribute(node, name, [1] * len(kernel)) for name in ("strides", "dilations")}
    pads = np.reshape(explicit_pads(node, graph), (2, -1)).tolist()
    flags = {name: attribute(node, name, 0) for name in ("ceil_mode", "count_include_pad")}
    if None in sizes[2:]:
        channels = sizes[1]
        if channels is None or flags["ceil_mode"] or (np.any(pads) and not flags["count_include_pad"]):
            raise refusal(node, "the size of its input is open, and its windows at the edge depend on it")
        weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
        inputs = [node.input[0], graph.constant(weight, like=node)]
        graph.emit(
            "Conv", inputs, like=node, output=node.output[0], group=channels, pads=np.ravel(pads).tolist(), **steps
        )
        return
    data = node.input[0]
    for at, window in enumerate(kernel):
        own = {name: [values[at]] for name, values in steps.items() if name == "strides" or values[at] > 1}
        size = sizes[at + 2]
        assert size is not None
        along = average_pool_along(
            {"kernel_shape": [window], "pads": [edge[at] for edge in pads], **own, **flags},
            graph.trace.opsets[""],
            size=size,
        )
        data = _resample(data, at + 2, along, sizes, node, graph)
        sizes[at + 2] = along.matrix.shape[1]
    graph.emit("Identity", [data], like=node, output=node.output[0])
