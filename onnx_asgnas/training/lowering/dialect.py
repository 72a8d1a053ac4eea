"""Which operators an engine differentiates as they stand; all others are lowered to those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from onnx_asgnas.graph.nodes import is_standard


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The operators that an engine differentiates, and rightly.

    `native` is asked about a node of the gradient path, of an operator set between 18 and 21. Where it says no, the
    node is written in other operators: by a rewrite, or by the definition that the ONNX standard gives of it; these
    are asked about in turn, until all that is left is native.
    """

    name: str
    native: Callable[[onnx.NodeProto], bool]


def _native_to_ort(node: onnx.NodeProto) -> bool:
    """What onnxruntime-training has a gradient and kernels for, on the CPU, and gets right."""
    if not is_standard(node):
        return node.domain == "com.microsoft" and node.op_type in _TRAINING_KERNELS
    if node.op_type not in ORT_OPERATORS:
        return False
    wrong = _WRONG_FORMS.get(node.op_type)
    return not (wrong and wrong(node))


ORT_OPERATORS = frozenset(
    """
    Abs Acos Acosh Add Asin Asinh Atan Atanh BatchNormalization Cast Ceil Clip Concat Conv Cos Cosh Div Erf Exp Expand
    Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool Identity LayerNormalization LeakyRelu Log
    LogSoftmax MatMul Max MaxPool Min Mul Neg Pad Pow Reciprocal ReduceMean ReduceSum Relu Reshape Round
    ScatterElements ScatterND Sigmoid Sign Sin Sinh Slice Softmax Softplus Sqrt Squeeze Sub Tan Tanh Tile TopK
    Transpose Unsqueeze Where
    """.split()  # noqa: SIM905 (a literal list takes fifty lines)
)
"""What the runtime has a gradient for, its own or one that the engine registers (`ort_gradients`)."""

_TRAINING_KERNELS = frozenset({"LSTMTraining", "GRUTraining"})


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _auto_padded(node: onnx.NodeProto) -> bool:
    return bool(_attribute(node, "auto_pad", b"NOTSET") != b"NOTSET")


def _lacks(position: int) -> Callable[[onnx.NodeProto], bool]:
    return lambda node: len(node.input) <= position or not node.input[position]


_WRONG_FORMS: dict[str, Callable[[onnx.NodeProto], bool]] = {
    "BatchNormalization": lambda node: not _attribute(node, "training_mode", 0),  # it trains every node of that name
    "Conv": _auto_padded,  # the gradient ignores it without saying so
    "Gather": lambda node: True,  # better as a Slice where it reads places in a row
    "Gelu": lambda node: _attribute(node, "approximate", b"none") == b"tanh",  # a wrong gradient
    "LayerNormalization": lambda node: True,  # needs a bias, and forgets the gradients of its other outputs
    "MatMul": lambda node: True,  # refuses vectors
    "Max": lambda node: len(node.input) != 2,
    "MaxPool": lambda node: True,  # the gradient crashes where the runtime does not know the sizes of the image
    "Min": lambda node: len(node.input) != 2,
    "Pad": lambda node: _attribute(node, "mode", b"constant") != b"constant" or not _lacks(3)(node),
    "Pow": lambda node: True,  # wrong where the exponent has another type, and slow for squares
    "ReduceMean": _lacks(1),
    "ReduceSum": _lacks(1),
    "ScatterElements": lambda node: _attribute(node, "reduction", b"none") != b"none",
    "ScatterND": lambda node: _attribute(node, "reduction", b"none") != b"none",
    "Slice": lambda node: not _lacks(4)(node),  # steps may be negative
    "Where": lambda node: True,  # the gradient forgets that an operand was broadcast
    "Transpose": lambda node: _attribute(node, "perm") is None,
}
"""Forms of its operators for which the runtime builds no gradient or, worse, a wrong one."""

ORT = Dialect(name="ort", native=_native_to_ort)
"""The dialect of onnxruntime-training 1.19.2 on the CPU."""
