"""Gradients that onnxruntime-training is given: those that it lacks, one that it is slow at, and some that are zero.

A definition is a small graph over the operator's inputs I, outputs O and the gradients GO of its outputs; it cannot
read attributes. Registrations hold for the whole process.
"""

from __future__ import annotations

import json
from functools import cache
from types import ModuleType
from typing import Any

import onnx

Step = tuple[str, list[str], str]
"""An operator, what it reads and what it makes."""

DETACHING = "Mean"
"""What a Detach of the training graph becomes: the mean of one tensor is that tensor, and Mean has no other use."""

_ONE: Step = ("Constant", ["1.0"], "one")
_ZERO: Step = ("Constant", ["0.0"], "zero")
_NOTHING: Step = ("Mul", ["GO(0)", "zero"], "GI(0)")
_SQUARE: Step = ("Mul", ["I(0)", "I(0)"], "square")


def _over_root(*under: Step) -> list[Step]:
    """The derivative is one over the root of what `under` makes last."""
    return [*under, ("Sqrt", [under[-1][2]], "root"), ("Div", ["GO(0)", "root"], "GI(0)")]


_DEFINITIONS: dict[str, list[Step]] = {
    # The built-in kernel takes 1.8 ms for [64,8,28,28] on one thread, more than a convolution; this takes 0.3.
    "Relu": [
        _ZERO,
        ("Greater", ["O(0)", "zero"], "positive"),
        ("Cast", ["positive"], "mask"),
        ("Mul", ["GO(0)", "mask"], "GI(0)"),
    ],
    "Softplus": [("Sigmoid", ["I(0)"], "slope"), ("Mul", ["GO(0)", "slope"], "GI(0)")],
    "Tan": [
        _ONE,
        ("Mul", ["O(0)", "O(0)"], "square"),
        ("Add", ["square", "one"], "slope"),
        ("Mul", ["GO(0)", "slope"], "GI(0)"),
    ],
    "Sinh": [("Cosh", ["I(0)"], "slope"), ("Mul", ["GO(0)", "slope"], "GI(0)")],
    "Cosh": [("Sinh", ["I(0)"], "slope"), ("Mul", ["GO(0)", "slope"], "GI(0)")],
    "Atan": [_ONE, _SQUARE, ("Add", ["square", "one"], "under"), ("Div", ["GO(0)", "under"], "GI(0)")],
    "Atanh": [_ONE, _SQUARE, ("Sub", ["one", "square"], "under"), ("Div", ["GO(0)", "under"], "GI(0)")],
    "Asin": _over_root(_ONE, _SQUARE, ("Sub", ["one", "square"], "under")),
    "Acos": [
        *_over_root(_ONE, _SQUARE, ("Sub", ["one", "square"], "under"))[:-1],
        ("Div", ["GO(0)", "root"], "positive"),
        ("Neg", ["positive"], "GI(0)"),
    ],
    "Asinh": _over_root(_ONE, _SQUARE, ("Add", ["square", "one"], "under")),
    "Acosh": _over_root(_ONE, _SQUARE, ("Sub", ["square", "one"], "under")),
    # Constant almost everywhere: a gradient of zero as in torch, instead of a build that fails.
    **{op_type: [_ZERO, _NOTHING] for op_type in ("Ceil", "Floor", "Round", "Sign")},
    # The runtime wants a gradient of whatever lies behind a Detach; nothing that is computed of it arrives.
    **{op_type: [_ZERO, _NOTHING] for op_type in (DETACHING, "DequantizeLinear", "Hardmax", "ReduceMax", "ReduceMin")},
    "Mod": [_ZERO, _NOTHING, ("Sub", ["I(1)", "I(1)"], "GI(1)")],
}


@cache
def register_gradients(binding: ModuleType) -> None:
    """Make all of them known to the runtime."""
    for op_type, steps in _DEFINITIONS.items():
        binding.register_gradient_definition(f"::{op_type}", [_node(binding, *step) for step in steps])


def _node(binding: ModuleType, op_type: str, inputs: list[str], output: str) -> Any:
    attributes: dict[str, tuple[Any, str, bool]] = {}
    if op_type == "Constant":
        attributes["value"] = (float(inputs[0]), "IElemType(0)", True)
        inputs = []
    elif op_type == "Cast":
        attributes["to"] = (int(onnx.TensorProto.FLOAT), "int", False)
    definition = binding.GradientNodeDefinition()
    definition.op_type, definition.domain, definition.inputs, definition.outputs = op_type, "", inputs, [output]
    described = []
    for name, (value, dtype, is_tensor) in attributes.items():
        entry = binding.GradientNodeAttributeDefinition()
        entry.name, entry.value_json, entry.dtype, entry.is_tensor = name, json.dumps(value), dtype, is_tensor
        described.append(entry)
    definition.attributes = described
    return definition
