"""Where gradients flow in a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import onnx
from onnx import TensorProto, helper

from onnx_asgnas.graph.nodes import is_standard, read_by
from onnx_asgnas.training.lowering.opset import opset_of
from onnx_asgnas.training.lowering.registry import PRIVATE

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_FLOAT_TYPES = ("(float)", "(double)", "(float16)", "(bfloat16)")
"""How the types end that hold such tensors: sequences and optional ones too."""


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
            sources, targets = differentiable_ends(node, opset)
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


def differentiable_ends(node: onnx.NodeProto, opset: int) -> tuple[list[str], list[str]]:
    """The inputs that a gradient may flow to, and the outputs that it may come from."""
    if not is_standard(node):
        return ([], []) if node.domain == PRIVATE else (read_by(node), [name for name in node.output if name])
    if len(reads := read_by(node)) > sum(1 for name in node.input if name):
        return reads, [name for name in node.output if name]
    if node.op_type == "Cast":
        to = next((a for a in node.attribute if a.name == "to"), None)
        if to is not None and helper.get_attribute_value(to) not in _FLOATS:
            return [], []
    inputs, outputs = _carrying(node.op_type, opset)
    if inputs is None or outputs is None:
        return reads, [name for name in node.output if name]
    return _chosen(node.input, inputs), _chosen(node.output, outputs)


def _chosen(names: Sequence[str], carrying: Sequence[bool]) -> list[str]:
    """The names at places that carry a gradient; the last one may be variadic."""
    last = len(carrying) - 1
    return [name for at, name in enumerate(names) if name and carrying[min(at, last)]]


@cache
def _carrying(op_type: str, opset: int) -> tuple[tuple[bool, ...] | None, tuple[bool, ...] | None]:
    """Which inputs and outputs of an operator may carry a gradient; None for one that the standard does not have."""
    if not onnx.defs.has(op_type, opset):
        return None, None
    schema = onnx.defs.get_schema(op_type, opset)
    kinds = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    never = onnx.defs.OpSchema.DifferentiationCategory.NonDifferentiable

    def carries(formal: onnx.defs.OpSchema.FormalParameter) -> bool:
        types = kinds.get(formal.type_str, [formal.type_str])
        integer = op_type not in QUANTISING and not any(kind in text for text in types for kind in _FLOAT_TYPES)
        smooth = formal.differentiation_category != never or formal.name in SMOOTH.get(op_type, ())
        return smooth and not integer

    return tuple(map(carries, schema.inputs)), tuple(map(carries, schema.outputs))


SMOOTH: dict[str, tuple[str, ...]] = {
    "AffineGrid": ("theta",),
    "CausalConvWithState": ("past_state", "present_state"),
    "DFT": ("input",),
    "GRU": ("initial_h",),
    "GridSample": ("grid",),
    "LSTM": ("initial_h", "initial_c"),
    "LinearAttention": ("past_state", "present_state"),
    "Mod": ("B",),
    "NegativeLogLikelihoodLoss": ("weight",),
    "OneHot": ("values", "output"),
    "RNN": ("initial_h",),
    "STFT": ("signal", "window", "output"),
    "SoftmaxCrossEntropyLoss": ("weights",),
}
"""Ends that the standard declares not to be differentiable, although they are."""

QUANTISING = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
"""Operators whose whole numbers stand for others: they are on the path, since leaving them out would be silent."""
