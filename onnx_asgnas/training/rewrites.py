"""One function per operator: how it is written with operators that the training runtime differentiates rightly.

`@rewrite("Sum")` on one function is all it takes. It is called for nodes on the gradient path, reads what it needs of
the node, and emits its replacement through `Rewriting`; the last operator that it emits gives the node's own output.
Each one is there for a reason that was measured: no gradient, no kernel for it, or a gradient that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.training.resampling import AxisMap, axis_map

Rewrite: TypeAlias = "Callable[[onnx.NodeProto, Rewriting], None]"
REWRITES: dict[str, Rewrite] = {}
"""The rewrites by operator of the ONNX standard."""


def rewrite(*op_types: str) -> Callable[[Rewrite], Rewrite]:
    """Register a rewrite for these operators."""

    def register(function: Rewrite) -> Rewrite:
        REWRITES.update(dict.fromkeys(op_types, function))
        return function

    return register


class Rewriting:
    """A graph in the making: nodes in topological order, and constants, under names that are new."""

    def __init__(self, trace: TraceGraph) -> None:
        self.trace = trace
        self.latest: dict[str, str] = {}
        """Where a run leaves the newest value of a statistic that more than one node updates."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._taken = {name for node in trace.nodes for name in (*node.input, *node.output, node.name)}

    def keep(self, node: onnx.NodeProto, **attributes: object) -> None:
        """Take a node over, with these attributes in place of its own of that name (None: without it)."""
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        del kept.attribute[:]
        kept.attribute.extend(a for a in node.attribute if a.name not in attributes)
        kept.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items() if v is not None)
        self._nodes.append(kept)

    def emit(
        self, op_type: str, inputs: Sequence[str], *, like: onnx.NodeProto, output: str = "", **attributes: Any
    ) -> str:
        """Add an operator that stands for (a part of) the node `like`, and return the name of its output."""
        name = self.name(f"{like.name}/{op_type}")
        output = output or name
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, value: NDArray[Any] | Sequence[int], *, like: onnx.NodeProto) -> str:
        """Add a constant (a sequence is one of int64) and return its name."""
        array = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        name = self.name(f"{like.name}/constant")
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def name(self, stem: str) -> str:
        """A name that nothing in the graph has."""
        name, count = stem, 1
        while name in self._taken:
            name, count = f"{stem}_{count}", count + 1
        self._taken.add(name)
        return name

    def sizes(self, tensor: str, node: onnx.NodeProto, why: str) -> list[int | None]:
        """The sizes of a tensor, None where open; refuses the node if not even the rank is known."""
        shape = self.trace.shape(tensor)
        if shape is None:
            raise refusal(node, f"its {why} needs the rank of {tensor!r}, which is not known")
        return list(shape)

    def fixed(self, tensor: str, node: onnx.NodeProto, why: str) -> NDArray[Any]:
        """The value of a constant input; refuses the node if it is computed."""
        if tensor in self.trace.initializers:
            return self.trace.array(tensor)
        value = self.trace.constant(tensor)
        if value is None:
            raise refusal(node, f"its {why} is computed by the network")
        return value

    def finish(self) -> onnx.ModelProto:
        """The graph as a model: inputs, outputs and opset are those of the old one."""
        result = onnx.ModelProto()
        result.CopyFrom(self.trace.model)
        del result.graph.node[:], result.graph.value_info[:]
        result.graph.node.extend(self._nodes)
        result.graph.initializer.extend(self._constants)
        used = {name for node in self._nodes for name in node.input} | set(self.trace.outputs)
        unused = [at for at, t in enumerate(result.graph.initializer) if t.name not in used]
        for at in reversed(unused):
            del result.graph.initializer[at]
        return result


def refusal(node: onnx.NodeProto, why: str) -> UnsupportedOperatorError:
    """The error for a node that a rewrite cannot handle."""
    return UnsupportedOperatorError(
        f"{node.op_type} {node.name!r} cannot be lowered for training: {why}",
        fix="Export the model with fixed sizes there, or freeze what lies before it (freeze=[...], --freeze PATTERN).",
        op_type=node.op_type,
        node=node.name,
    )


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def train_batch_normalization(node: onnx.NodeProto, graph: Rewriting) -> None:
    """BatchNormalization in training form: it uses the batch's statistics, and a run updates the running ones in place.

    running = momentum * running + (1 - momentum) * batch (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
    """
    if not set(node.input[3:5]) <= set(graph.trace.inputs):
        freeze_batch_normalization(node, graph)  # its statistics are computed or constant, and not ours to update
        return
    training = onnx.NodeProto()
    training.CopyFrom(node)
    for position, kind in ((3, "mean"), (4, "var")):
        statistic = node.input[position]
        training.input[position] = graph.latest.get(statistic, statistic)
        graph.latest[statistic] = graph.name(f"{node.name}/running_{kind}")
        training.output.append(graph.latest[statistic])
    graph.keep(training, training_mode=1)


def freeze_batch_normalization(node: onnx.NodeProto, graph: Rewriting) -> None:
    """BatchNormalization in inference form, written out: the runtime trains every node of that name."""
    data, scale, bias, mean, variance = node.input
    rank = len(graph.sizes(data, node, "channels"))
    epsilon = graph.constant(np.array(attribute(node, "epsilon", 1e-5), np.float32), like=node)
    deviation = graph.emit("Sqrt", [graph.emit("Add", [variance, epsilon], like=node)], like=node)
    factor = graph.emit("Div", [scale, deviation], like=node)
    offset = graph.emit("Sub", [bias, graph.emit("Mul", [mean, factor], like=node)], like=node)
    if rank > 2:
        shape = graph.constant([-1] + [1] * (rank - 2), like=node)
        factor, offset = (graph.emit("Reshape", [tensor, shape], like=node) for tensor in (factor, offset))
    graph.emit("Add", [graph.emit("Mul", [data, factor], like=node), offset], like=node, output=node.output[0])


@rewrite("Dropout")
def rewrite_dropout(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Dropout is off in normal form."""
    if len(node.output) > 1 and node.output[1]:
        raise refusal(node, "its mask is used")
    graph.emit("Identity", node.input[:1], like=node, output=node.output[0])


@rewrite("Sum", "Max", "Min")
def rewrite_variadic(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Sum has no gradient, and Max and Min have one for two operands: a chain of those."""
    op_type = {"Sum": "Add"}.get(node.op_type, node.op_type)
    total, *others = node.input
    if not others:
        graph.emit("Identity", [total], like=node, output=node.output[0])
    for at, other in enumerate(others, 1):
        output = node.output[0] if at == len(others) else ""
        total = graph.emit(op_type, [total, other], like=node, output=output)


@rewrite("Mean")
def rewrite_mean(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Mean: the sum of the operands times 1/n."""
    total, *others = node.input
    for other in others:
        total = graph.emit("Add", [total, other], like=node)
    share = graph.constant(np.array(1 / len(node.input), np.float32), like=node)
    graph.emit("Mul", [total, share], like=node, output=node.output[0])


@rewrite("Transpose")
def rewrite_transpose(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Transpose with its order written out, which the gradient needs."""
    rank = len(graph.sizes(node.input[0], node, "order"))
    graph.keep(node, perm=attribute(node, "perm", list(range(rank))[::-1]))


@rewrite("Pow")
def rewrite_pow(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Pow with a float exponent: the gradient multiplies by it."""
    base, exponent = node.input
    if graph.trace.dtype(exponent) == graph.trace.dtype(base):
        graph.keep(node)
        return
    value = graph.fixed(exponent, node, "exponent")
    power = graph.constant(np.asarray(value, np.float32), like=node)
    graph.emit("Pow", [base, power], like=node, output=node.output[0])


@rewrite("Split")
def rewrite_split(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Split as Slices: the gradient of one with an output that nobody reads has a wrong shape."""
    sizes = graph.sizes(node.input[0], node, "parts")
    axis = attribute(node, "axis", 0) % len(sizes)
    if len(node.input) > 1 and node.input[1]:
        parts = graph.fixed(node.input[1], node, "split").tolist()
    else:
        size = sizes[axis]
        if size is None:
            raise refusal(node, f"the size of axis {axis} is open")
        each = -(-size // len(node.output))
        parts = [min(each, size - at * each) for at in range(len(node.output))]
    ends = np.cumsum([0, *parts]).tolist()
    where = graph.constant([axis], like=node)
    for output, (start, end) in zip(node.output, pairwise(ends), strict=True):
        if output:
            bounds = [graph.constant([edge], like=node) for edge in (start, end)]
            graph.emit("Slice", [node.input[0], *bounds, where], like=node, output=output)


@rewrite("Pad")
def rewrite_pad(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Pad with an amount for every axis; reflected and repeated edges are gathered, axis by axis."""
    rank = len(graph.sizes(node.input[0], node, "padding"))
    given = graph.fixed(node.input[1], node, "padding").tolist()
    axes = graph.fixed(node.input[3], node, "axes").tolist() if len(node.input) > 3 and node.input[3] else range(rank)
    pads = np.zeros((2, rank), np.int64)
    pads[:, [axis % rank for axis in axes]] = np.reshape(given, (2, -1))
    mode = attribute(node, "mode", b"constant").decode()
    if mode == "constant":
        value = [node.input[2]] if len(node.input) > 2 and node.input[2] else []
        graph.emit(
            "Pad", [node.input[0], graph.constant(pads.ravel(), like=node), *value], like=node, output=node.output[0]
        )
        return
    data = node.input[0]
    for axis in np.flatnonzero(pads.any(axis=0)).tolist():
        size = graph.sizes(node.input[0], node, "padding")[axis]
        if size is None or (pads < 0).any():
            raise refusal(node, f"mode {mode!r} needs the size of axis {axis}, and pads that are not negative")
        index = np.pad(np.arange(size), pads[:, axis].tolist(), mode=mode)
        data = graph.emit("Gather", [data, graph.constant(index, like=node)], like=node, axis=axis)
    graph.emit("Identity", [data], like=node, output=node.output[0])


@rewrite("Conv", "MaxPool", "AveragePool")
def rewrite_window(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Windows with explicit pads: the gradient ignores auto_pad without saying so."""
    mode = attribute(node, "auto_pad", b"NOTSET").decode()
    if mode == "NOTSET":
        graph.keep(node)
        return
    spatial = graph.sizes(node.input[0], node, "padding")[2:]
    pads = [0] * (2 * len(spatial))
    if mode.startswith("SAME"):
        kernel = attribute(node, "kernel_shape") or graph.sizes(node.input[1], node, "kernel")[2:]
        strides = attribute(node, "strides", [1] * len(spatial))
        dilations = attribute(node, "dilations", [1] * len(spatial))
        totals = []
        for axis, (size, window, stride, dilation) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
            if size is None and stride > 1:
                raise refusal(node, f"auto_pad {mode} needs the size of axis {axis + 2}, which is open")
            reach = (window - 1) * dilation + 1
            totals.append(max(reach - stride if size is None or size % stride == 0 else reach - size % stride, 0))
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = less + more if mode == "SAME_UPPER" else more + less
    graph.keep(node, auto_pad=None, pads=pads)


@rewrite("GlobalMaxPool")
def rewrite_global_max_pool(node: onnx.NodeProto, graph: Rewriting) -> None:
    """GlobalMaxPool: a MaxPool whose window is the image."""
    spatial = graph.sizes(node.input[0], node, "window")[2:]
    if None in spatial:
        raise refusal(node, "the size of its input is open")
    graph.emit("MaxPool", node.input, like=node, output=node.output[0], kernel_shape=spatial)


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
                found[axis] = axis_map(node, opset, size=sizes[axis], scale=scale, new_size=None)
        return found
    result = graph.sizes(node.output[0], node, "size")
    for axis in axes:
        old, new = sizes[axis], result[axis]
        if old is None or new is None:
            if not _keeps_size(node, graph, axis):
                raise refusal(node, f"the size of axis {axis} is open, and the new one is given as a number")
        elif old != new:
            found[axis] = axis_map(node, opset, size=old, scale=None, new_size=new)
    return found


def _keeps_size(node: onnx.NodeProto, graph: Rewriting, axis: int) -> bool:
    before, after = graph.trace.sizes(node.input[0]), graph.trace.sizes(node.output[0])
    return all(old and new and old[axis] == new[axis] for old, new in zip(before, after, strict=True))


def _resample(
    data: str, axis: int, along: AxisMap, sizes: Sequence[int | None], node: onnx.NodeProto, graph: Rewriting
) -> str:
    """Emit x @ matrix along one axis; `sizes` are those before it."""
    last = len(sizes) - 1
    by_copies = along.copies and (axis < last or sizes[axis] is None)
    if axis < last and None in sizes[axis + 1 :] if by_copies else axis < last - 1:
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
