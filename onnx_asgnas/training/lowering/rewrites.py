"""One function per operator: how it is written with operators that the training runtime differentiates rightly.

`@rewrite("Sum")` on one function is all it takes. It is called for nodes on the gradient path, reads what it needs of
the node, and emits its replacement through `Rewriting`; the last operator that it emits gives the node's own output.
Each one is there for a reason that was measured: no gradient, no kernel for it, or a gradient that is wrong.
`resampling` holds those of Resize and AveragePool.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx

from onnx_asgnas.training.lowering.rewriting import Rewriting, attribute, explicit_pads, refusal, rewrite


def train_batch_normalization(node: onnx.NodeProto, graph: Rewriting) -> None:
    """BatchNormalization in training form: it uses the batch's statistics, and a run updates the running ones in place.

    running = momentum * running + (1 - momentum) * batch (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
    """
    if not set(node.input[3:5]) <= set(graph.trace.inputs):
        freeze_batch_normalization(node, graph)  # its statistics are computed or constant, and not ours to update
        return
    training = onnx.NodeProto()
    training.CopyFrom(node)
    training.output.extend(graph.name(f"{node.name}/running_{kind}") for kind in ("mean", "var"))
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


@rewrite("LayerNormalization")
def rewrite_layer_normalization(node: onnx.NodeProto, graph: Rewriting) -> None:
    """LayerNormalization with a bias and all three outputs, without which its gradient does not build."""
    data, scale, *bias = node.input
    if not any(bias):
        shape = graph.sizes(scale, node, "bias")
        bias = [graph.constant(np.zeros([size or 1 for size in shape], np.float32), like=node)]
    whole = onnx.NodeProto()
    whole.CopyFrom(node)
    whole.input[:] = [data, scale, *bias]
    whole.output[:] = [name or graph.name(f"{node.name}/output") for name in [*node.output, "", ""][:3]]
    graph.keep(whole)


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


@rewrite("Conv", "MaxPool")
def rewrite_window(node: onnx.NodeProto, graph: Rewriting) -> None:
    """Windows with explicit pads: the gradient ignores auto_pad without saying so."""
    if attribute(node, "auto_pad", b"NOTSET") == b"NOTSET":
        graph.keep(node)
    else:
        graph.keep(node, auto_pad=None, pads=explicit_pads(node, graph))


@rewrite("GlobalMaxPool")
def rewrite_global_max_pool(node: onnx.NodeProto, graph: Rewriting) -> None:
    """GlobalMaxPool: a MaxPool whose window is the image."""
    spatial = graph.sizes(node.input[0], node, "window")[2:]
    if None in spatial:
        raise refusal(node, "the size of its input is open")
    graph.emit("MaxPool", node.input, like=node, output=node.output[0], kernel_shape=spatial)
