"""Operators that look at every element by itself: arithmetic, comparisons, logic, types."""

from __future__ import annotations

from functools import reduce

import onnx
import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.registry import (
    DTYPES,
    Compute,
    Operator,
    Tensor,
    attribute_of,
    direct,
    function,
)
from onnx_asgnas.training.lowering.registry import PRIVATE

direct(
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "Acosh": torch.acosh,
        "Asin": torch.asin,
        "Asinh": torch.asinh,
        "Atan": torch.atan,
        "Atanh": torch.atanh,
        "BitwiseNot": torch.bitwise_not,
        "Cos": torch.cos,
        "Cosh": torch.cosh,
        "Det": torch.det,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "IsNaN": torch.isnan,
        "Log": torch.log,
        "Not": torch.logical_not,
        "Reciprocal": torch.reciprocal,
        "Round": torch.round,
        "Sin": torch.sin,
        "Sinh": torch.sinh,
        "Sqrt": torch.sqrt,
        "Tan": torch.tan,
    }
)
direct(
    {
        "And": torch.logical_and,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "Equal": torch.eq,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Identity": lambda x: x,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Neg": torch.neg,
        "Or": torch.logical_or,
        "Sign": torch.sign,
        "Where": torch.where,
        "Xor": torch.logical_xor,
    },
    of_host=True,
)


_ARITHMETIC: dict[str, Compute] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul}


@function(*_ARITHMETIC, of_host=True)
def arithmetic(op: Operator) -> Compute:
    """Sum, difference and product; with a constant number no tensor is read."""
    return _with_number(op, _ARITHMETIC[op.node.op_type])


def _with_number(op: Operator, compute: Compute) -> Compute:
    """The function, with the second operand as a Python number where it is one of rank 0 that never changes."""
    value = op.constant(1)
    if value is None or value.ndim or value.dtype.kind != "f":
        return compute
    number = value.item()
    return lambda x, _: compute(x, number)


@function("Div", of_host=True)
def divide(op: Operator) -> Compute:
    """The quotient; that of integers is rounded towards zero."""

    def run(x: Tensor, y: Tensor | float) -> Tensor:
        return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")

    return _with_number(op, run)


@function("Mod", of_host=True)
def modulo(op: Operator) -> Compute:
    """The remainder, of the sign of the divisor, or of that of the dividend with fmod=1."""
    return torch.fmod if op.attribute("fmod", 0) else torch.remainder


_WITHOUT_ARITHMETIC = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""Types that torch holds but does not compute with."""


@function("Pow", of_host=True)
def power(op: Operator) -> Compute:
    """A power, of the type of the base."""
    exponent = op.number(1)
    value = op.constant(1)
    if exponent is not None and value is not None and value.ndim == 0:
        return lambda x, _: torch.pow(x, exponent).to(x.dtype)

    def run(x: Tensor, y: Tensor) -> Tensor:
        if y.dtype in _WITHOUT_ARITHMETIC:
            y = y.to(x.dtype if x.is_floating_point() else torch.int64)
        return torch.pow(x, y).to(x.dtype)

    return run


@function("BitShift")
def bit_shift(op: Operator) -> Compute:
    """Bits moved to the left or to the right."""
    return torch.bitwise_left_shift if op.attribute("direction") == "LEFT" else torch.bitwise_right_shift


@function("Ceil", "Floor")
def whole(op: Operator) -> Compute:
    """Rounded up or down."""
    return torch.ceil if op.node.op_type == "Ceil" else torch.floor


@function("IsInf")
def is_infinite(op: Operator) -> Compute:
    """Is it infinite, of a sign that counts."""
    positive, negative = op.attribute("detect_positive", 1), op.attribute("detect_negative", 1)
    if positive and negative:
        return torch.isinf
    if positive:
        return torch.isposinf
    return torch.isneginf if negative else lambda x: torch.zeros_like(x, dtype=torch.bool)


@function("Max", "Min", of_host=True)
def extreme(op: Operator) -> Compute:
    """The largest or smallest of several."""
    two = torch.maximum if op.node.op_type == "Max" else torch.minimum
    return lambda *xs: reduce(two, xs)


@function("Sum", "Mean")
def total(op: Operator) -> Compute:
    """The sum or the mean of several."""
    if op.node.op_type == "Sum":
        return lambda *xs: reduce(torch.add, xs)
    return lambda *xs: reduce(torch.add, xs) / len(xs)


@function("Clip", of_host=True)
def clip(op: Operator) -> Compute:
    """Between two bounds, each of which may be left out; by hardtanh, whose backward is faster, where that can be."""
    bounds = [op.number(position) for position in (1, 2)]
    if all(bound is not None or not op.has(at) for at, bound in enumerate(bounds, 1)):
        low, high = bounds
        if low is None and high is None:
            return lambda x, *_: x
        if low is None or high is None or low > high:
            return lambda x, *_: torch.clamp(x, low, high)
        return lambda x, *_: F.hardtanh(x, low, high) if x.is_floating_point() else torch.clamp(x, low, high)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return run


def _to_text(node: onnx.NodeProto) -> bool:
    return attribute_of(node, "to") not in DTYPES


@function("Cast", unless=_to_text, of_host=True)
def cast(op: Operator) -> Compute:
    """Another element type; floats lose what follows the point."""
    dtype = op.dtype(op.attribute("to"))
    return lambda x: x.to(dtype)


@function("CastLike", of_host=True)
def cast_like(op: Operator) -> Compute:
    """The element type of another tensor."""
    return lambda x, like: x.to(like.dtype)


@function("Detach", domain=PRIVATE)
def detach(op: Operator) -> Compute:
    """The same value, through which no gradient flows."""
    return lambda x: x.detach()


@function("Dropout")
def dropout(op: Operator) -> Compute:
    """The input: dropout is off in normal form. The mask says that nothing was dropped."""

    def run(x: Tensor, *_: Tensor | None) -> list[Tensor | None]:
        return [x, torch.ones_like(x, dtype=torch.bool) if op.wants(1) else None]

    return run
