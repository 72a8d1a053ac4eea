"""Where gradients flow in a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from onnx_asgnas.graph.normalise import read_by
from onnx_asgnas.training.lowering.opset import is_standard, opset_of
from onnx_asgnas.training.lowering.rewriting import attribute


class GradientPath:
    """The tensors and nodes through which `wrt` reaches an output differentiably.

    Which inputs and outputs of an operator carry a gradient is what the ONNX standard says of them (Clip's bounds,
    Reshape's shape and MaxPool's indices do not). An operator outside of the standard, or with subgraphs, is taken to
    carry one everywhere, from what its subgraphs capture too.
    """

    def __init__(self, model: onnx.ModelProto, wrt: Iterable[str]) -> None:
        opset = opset_of(model)
        reached = set(wrt)
        through: list[tuple[onnx.NodeProto, list[str], list[str]]] = []
        for node in model.graph.node:
            sources, targets = _differentiable_ends(node, opset)
            if not reached.isdisjoint(sources):
                reached.update(targets)
                through.append((node, sources, targets))
        needed = {value.name for value in model.graph.output} & reached
        self.nodes: list[onnx.NodeProto] = []
        for node, sources, targets in reversed(through):
            if not needed.isdisjoint(targets):
                needed.update(reached.intersection(sources))
                self.nodes.append(node)
        self.nodes.reverse()
        self.tensors = frozenset(needed)
        """All tensors that lie on the path, its ends among them."""


def _differentiable_ends(node: onnx.NodeProto, opset: int) -> tuple[list[str], list[str]]:
    reads = read_by(node)
    captures = len(reads) > sum(1 for name in node.input if name)
    if captures or not is_standard(node) or not onnx.defs.has(node.op_type, opset):
        return reads, [name for name in node.output if name]
    schema = onnx.defs.get_schema(node.op_type, opset)
    if node.op_type == "Cast" and attribute(node, "to") not in _FLOATS:
        return [], []
    return _carrying(node.input, schema.inputs), _carrying(node.output, schema.outputs)


def _carrying(names: Sequence[str], formal: Sequence[onnx.defs.OpSchema.FormalParameter]) -> list[str]:
    """The names whose formal parameter is not declared non-differentiable; the last one may be variadic."""
    never = onnx.defs.OpSchema.DifferentiationCategory.NonDifferentiable
    categories = [f.differentiation_category for f in formal]
    return [name for at, name in enumerate(names) if name and categories[min(at, len(categories) - 1)] != never]


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
