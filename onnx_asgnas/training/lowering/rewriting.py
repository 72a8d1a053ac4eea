"""The means to write a graph anew operator by operator, and the registry of how it is done for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph import TraceGraph

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


def explicit_pads(node: onnx.NodeProto, graph: Rewriting) -> list[int]:
    """The pads of a window operator, worked out where auto_pad gives them by a rule."""
    mode = attribute(node, "auto_pad", b"NOTSET").decode()
    spatial = graph.sizes(node.input[0], node, "padding")[2:]
    if mode in ("NOTSET", "VALID"):
        return list(attribute(node, "pads", [0] * (2 * len(spatial)))) if mode == "NOTSET" else [0] * (2 * len(spatial))
    kernel = attribute(node, "kernel_shape") or graph.sizes(node.input[1], node, "kernel")[2:]
    strides = attribute(node, "strides", [1] * len(spatial))
    dilations = attribute(node, "dilations", [1] * len(spatial))
    totals = []
    for axis, (size, window, stride, dilation) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
        if size is None and stride > 1:
            raise refusal(node, f"auto_pad {mode} needs the size of axis {axis + 2}, which is open")
        reach = (window - 1) * dilation + 1
        totals.append(max(reach - stride if size is None or size % stride == 0 else reach - size % stride, 0))
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if mode == "SAME_UPPER" else more + less
