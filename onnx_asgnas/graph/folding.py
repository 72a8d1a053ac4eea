"""Folding of shape arithmetic: what is the same at every binding of the open dimensions becomes a number."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas.graph.nodes import is_standard, read_by, replace
from onnx_asgnas.graph.shapes import ShapeInference


def fold(
    nodes: list[onnx.NodeProto],
    outputs: Collection[str],
    initializers: dict[str, onnx.TensorProto],
    shapes: ShapeInference,
) -> list[onnx.NodeProto]:
    """One pass in topological order: the nodes that stay, with the values of the others among the initializers.

    Nodes that stay may be changed in place: a Reshape gets a constant target, a Conv loses a bias of computed zeros.
    """
    folded: set[str] = set()
    kept = []
    for node in nodes:
        shapes.step(node)
        names = [name for name in node.output if name]
        if all(shapes.constant(name) is not None for name in names) and names and not any(n in outputs for n in names):
            folded.update(names)
            continue
        if node.op_type == "Reshape" and is_standard(node) and len(node.input) == 2:
            _fold_target(node, initializers, shapes)
        elif node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3 and node.input[2] in folded:
            bias = shapes.constant(node.input[2])
            if bias is not None and not bias.any():
                node.input.pop()  # computed zeros are an exporter's way to say that there is no bias
        kept.append(node)
    shapes.release()
    if folded:
        used = {name for node in kept for name in read_by(node)}
        for name in sorted(folded & used):
            value = shapes.constant(name)
            if value is not None:
                initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
    return kept


def _fold_target(node: onnx.NodeProto, initializers: dict[str, onnx.TensorProto], shapes: ShapeInference) -> None:
    """Give a Reshape whose target varies with an open dimension a constant target, with 0 and -1 in its place."""
    name = node.input[1]
    if shapes.constant(name) is not None:
        return
    varying, first = shapes.varying(name), shapes.value(name)
    if varying is None or first is None:
        return
    target = np.where(varying, -1, first).astype(np.int64)
    if any(a.name == "allowzero" and a.i for a in node.attribute) and not target.all():
        return
    for axis in np.flatnonzero(varying):
        if shapes.copies(name, int(axis), node.input[0], int(axis)):
            target[axis] = 0
    if (target == -1).sum() > 1:
        return
    constant = f"{node.name}.shape"
    while shapes.knows(constant):
        constant += "_"
    initializers[constant] = numpy_helper.from_array(target, constant)
    shapes.add_constant(constant, target)
    node.input[1] = constant
    kept = [a for a in node.attribute if a.name != "allowzero"]
    if len(kept) < len(node.attribute):
        replace(node.attribute, kept)
