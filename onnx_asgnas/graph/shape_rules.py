"""Lengths and element types of the operators that make up most graphs, from complete facts of their inputs.

Each rule is that of the ONNX specification (https://onnx.ai/onnx/operators) from operator set 7 on and gives exactly
what onnx's own inference gives, which a test holds over onnx's node tests. A rule that gives None leaves the node to
onnx's inference: where a case is rare, where a value is not known, and where the node is not valid at all. Those of
operators that only move elements about are in `layout_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_asgnas.graph.facts import ABSENT, Fact

Lengths = tuple[int, ...]
Outputs = list[tuple[int, Lengths]]
"""Element type and lengths, one after another, of the outputs."""
Rule = Callable[["Call"], "Outputs | None"]

OLDEST = 7
"""The first operator set that the rules hold for."""
RULES: dict[tuple[str, str], Rule] = {}
"""By domain and operator."""


@dataclass(frozen=True, slots=True)
class Call:
    """One node by what its outputs depend on: everything but names."""

    op_type: str
    version: int
    inputs: tuple[Fact, ...]
    attributes: dict[str, Any]
    outputs: int

    @property
    def kind(self) -> int:
        """The element type of the first input."""
        return self.inputs[0].kind

    def has(self, position: int) -> bool:
        """Is there such an input."""
        return position < len(self.inputs) and self.inputs[position] is not ABSENT

    def shape(self, position: int = 0) -> Lengths:
        """The lengths of an input."""
        return self.inputs[position].shape or ()

    def numbers(self, name: str, position: int) -> list[int] | None:
        """What older operator sets keep in an attribute and newer ones in an input; None where it is not known."""
        if name in self.attributes:
            return list(self.attributes[name])
        value = self.inputs[position].value if self.has(position) else None
        return None if value is None else [int(v) for v in value.reshape(-1)]

    def knows(self, name: str, position: int) -> bool:
        """Is that given and known, or not given at all."""
        return not self.has(position) or self.numbers(name, position) is not None


def rule(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Declare the rule of these operators."""

    def register(function: Rule) -> Rule:
        RULES.update({(domain, op_type): function for op_type in op_types})
        return function

    return register


_SAME = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "CumSum",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "RMSNormalization",
    "Reciprocal",
    "Relu",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
]


@rule(*_SAME)
@rule("Gelu", "FastGelu", "QuickGelu", "BiasGelu", domain="com.microsoft")
def _same(call: Call) -> Outputs | None:
    return [(call.kind, call.shape())]


@rule("BatchNormalization", "LayerNormalization", "Dropout", "SimplifiedLayerNormalization")
@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def _same_and_more(call: Call) -> Outputs | None:
    return [(call.kind, call.shape())] if call.outputs == 1 else None


@rule("IsNaN", "IsInf")
def _test(call: Call) -> Outputs | None:
    return [(onnx.TensorProto.BOOL, call.shape())]


@rule("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _broadcast(call: Call) -> Outputs | None:
    shape = broadcast(call.shape(at) for at in range(len(call.inputs)))
    return None if shape is None else [(call.kind, shape)]


@rule("And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
def _compare(call: Call) -> Outputs | None:
    shape = broadcast(call.shape(at) for at in range(len(call.inputs)))
    return None if shape is None else [(onnx.TensorProto.BOOL, shape)]


@rule("Where")
def _where(call: Call) -> Outputs | None:
    shape = broadcast(call.shape(at) for at in range(3))
    return None if shape is None else [(call.inputs[1].kind, shape)]


def broadcast(shapes: Iterable[Lengths]) -> Lengths | None:
    """The lengths that all of them broadcast to, None where they do not."""
    result: Lengths = ()
    for shape in shapes:
        if shape == result:
            continue
        if len(shape) < len(result):
            shape = (1,) * (len(result) - len(shape)) + shape
        else:
            result = (1,) * (len(shape) - len(result)) + result
        if any(a not in (1, b) and b != 1 for a, b in zip(result, shape, strict=True)):
            return None
        result = tuple(b if a == 1 else a for a, b in zip(result, shape, strict=True))
    return result


@rule("MatMul")
def _matmul(call: Call) -> Outputs | None:
    return _product(call.kind, call.shape(0), call.shape(1))


@rule("FusedMatMul", domain="com.microsoft")
def _fused_matmul(call: Call) -> Outputs | None:
    one, two = call.shape(0), call.shape(1)
    if len(one) < 2 or len(two) < 2 or call.attributes.get("transBatchA") or call.attributes.get("transBatchB"):
        return None
    if call.attributes.get("transA"):
        one = (*one[:-2], one[-1], one[-2])
    if call.attributes.get("transB"):
        two = (*two[:-2], two[-1], two[-2])
    return _product(call.kind, one, two)


def _product(kind: int, one: Lengths, two: Lengths) -> Outputs | None:
    if not one or not two:
        return None
    left, right = (1, *one) if len(one) == 1 else one, (*two, 1) if len(two) == 1 else two
    outer = broadcast([left[:-2], right[:-2]])
    if outer is None or left[-1] != right[-2]:
        return None
    rows = () if len(one) == 1 else (left[-2],)
    columns = () if len(two) == 1 else (right[-1],)
    return [(kind, (*outer, *rows, *columns))]


@rule("Gemm")
@rule("FusedGemm", domain="com.microsoft")
def _gemm(call: Call) -> Outputs | None:
    one, two = call.shape(0), call.shape(1)
    if len(one) != 2 or len(two) != 2:
        return None
    flipped = bool(call.attributes.get("transA")), bool(call.attributes.get("transB"))
    if one[not flipped[0]] != two[flipped[1]]:
        return None
    return [(call.kind, (one[flipped[0]], two[not flipped[1]]))]


@rule("Conv")
@rule("FusedConv", domain="com.microsoft")
def _conv(call: Call) -> Outputs | None:
    x, weight = call.shape(0), call.shape(1)
    if len(x) < 3 or len(weight) != len(x) or call.attributes.get("group", 1) * weight[1] != x[1]:
        return None
    if tuple(call.attributes.get("kernel_shape", weight[2:])) != weight[2:]:
        return None
    space = _windows(call, x[2:], weight[2:])
    return None if space is None else [(call.kind, (x[0], weight[0], *space))]


@rule("MaxPool", "AveragePool", "LpPool")
def _pool(call: Call) -> Outputs | None:
    x, kernel = call.shape(), call.attributes.get("kernel_shape", ())
    if len(x) < 3 or len(kernel) != len(x) - 2 or call.attributes.get("ceil_mode"):
        return None
    space = _windows(call, x[2:], kernel)
    if space is None:
        return None
    shape = (*x[:2], *space)
    return [(call.kind, shape), (onnx.TensorProto.INT64, shape)][: call.outputs]


def _windows(call: Call, lengths: Lengths, kernel: Sequence[int]) -> Lengths | None:
    """How often a window fits along each axis of space; None with automatic padding."""
    if call.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    rank = len(lengths)
    valid = call.attributes.get("auto_pad") == b"VALID"
    pads = [0] * 2 * rank if valid else call.attributes.get("pads", [0] * 2 * rank)
    strides, dilations = (call.attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    if len(pads) != 2 * rank or len(strides) != rank or len(dilations) != rank or 0 in strides:
        return None
    room = [lengths[i] + pads[i] + pads[rank + i] - (dilations[i] * (kernel[i] - 1) + 1) for i in range(rank)]
    return None if min(room) < 0 else tuple(free // stride + 1 for free, stride in zip(room, strides, strict=True))


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(call: Call) -> Outputs | None:
    x = call.shape()
    return [(call.kind, x[:2] + (1,) * (len(x) - 2))] if len(x) > 2 else None


@rule("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin")
@rule("ReduceProd", "ReduceSum", "ReduceSumSquare")
def _reduce(call: Call) -> Outputs | None:
    x = call.shape()
    if not call.knows("axes", 1):
        return None
    axes = call.numbers("axes", 1)
    if not axes:
        axes = [] if call.attributes.get("noop_with_empty_axes") else list(range(len(x)))
    if any(not -len(x) <= axis < len(x) for axis in axes):
        return None
    return [(call.kind, _without(x, {axis % len(x) for axis in axes}, call.attributes.get("keepdims", 1)))]


@rule("ArgMax", "ArgMin")
def _argument(call: Call) -> Outputs | None:
    x = call.shape()
    axis = call.attributes.get("axis", 0)
    if not -len(x) <= axis < len(x):
        return None
    return [(onnx.TensorProto.INT64, _without(x, {axis % len(x)}, call.attributes.get("keepdims", 1)))]


def _without(shape: Lengths, axes: set[int], keep: int) -> Lengths:
    return tuple(1 if axis in axes else n for axis, n in enumerate(shape) if keep or axis not in axes)
