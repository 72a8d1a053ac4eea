"""Which operators an engine differentiates as they stand; all others are lowered to those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from onnx_asgnas.training.lowering.opset import is_standard
from onnx_asgnas.training.lowering.rewriting import REWRITES, attribute


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The operators that an engine differentiates, and rightly.

    `native` is asked about a node of the gradient path, of an operator set between 18 and 21. Where it says no, the
    node is written in other operators: by a rewrite, or by the definition that the ONNX standard gives of it; these
    are asked about in turn, until all that is left is native.
    """

    name: str
    native: Callable[[onnx.NodeProto], bool]


DIFFERENTIABLE = frozenset(
    """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Conv Cos Div Erf Exp Expand Flatten Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max MaxPool Min
    Mul Neg Pad Pow Reciprocal ReduceMean ReduceSum Relu Reshape ScatterElements ScatterND Sigmoid Sin Slice Softmax
    Sqrt Squeeze Sub Tanh Tile TopK Transpose Unsqueeze Where
    """.split()  # noqa: SIM905 (a literal list takes fifty lines)
)
"""What onnxruntime-training has a gradient for, once the rewrites have put it into a form that is differentiated."""


def _native_to_ort(node: onnx.NodeProto) -> bool:
    """What onnxruntime-training has a gradient and kernels for, on the CPU, and gets right whatever its form."""
    if node.op_type == "Gelu" and attribute(node, "approximate", b"none") == b"tanh":
        return False  # the runtime's own gradient of it is wrong
    return is_standard(node) and node.op_type in DIFFERENTIABLE and node.op_type not in REWRITES


ORT = Dialect(name="ort", native=_native_to_ort)
"""The dialect of onnxruntime-training 1.19.2 on the CPU."""
