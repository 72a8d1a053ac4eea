"""Operators that work on each element by itself, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.meeting import broadcast
from onnx_asgnas.operators.moving import unchanged, views
from onnx_asgnas.operators.registry import Joint, Op, Rule, first, never, register


def pass_labels(flow: LabelFlow) -> None:
    """The output has the labels of the first input, and is zero where that is."""
    flow.write(flow.read(0))


def freeze_at_pole(flow: LabelFlow, position: int) -> None:
    """Keep the channels of an input that would be zero where the operator is not finite at zero."""
    found = flow.read(position)
    flow.freeze(found.ids[(found.ids >= 0) & found.zero], f"{flow.node.op_type} is not finite at zero")


def pass_labels_not_zero(flow: LabelFlow) -> None:
    """The output has the labels of the first input, but is not zero where that is."""
    found = flow.read(0)
    flow.write(Labelled(found.ids, np.zeros_like(found.zero)))


@register(
    "Abs", "Ceil", "Celu", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "LeakyRelu", "Mish", "Neg", "Relu", "Round"
)
@register("Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh")
@register("Asin", "Asinh", "Atan", "Atanh", "ThresholdedRelu")
def zero_preserving(op: Op) -> Rule:
    """f(0) = 0; https://onnx.ai/onnx/operators/"""
    keeps = op.node.op_type != "Shrink" or op.attribute("bias", 0.0) == 0 or op.attribute("lambd", 0.5) >= 0
    return Rule(labels=pass_labels if keeps else pass_labels_not_zero, zero=first if keeps else never)


@register("Cast", "CastLike", "Identity")
def same_values(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Cast.html: on a weight, another view of it."""

    def labels(flow: LabelFlow) -> None:
        pass_labels(flow)
        flow.taken.update(range(len(op.node.input)))  # of what a CastLike is like only the type counts

    return Rule(labels=labels, zero=first, view=views(unchanged))


@register("BitCast", since_version=26)
def bit_cast(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__BitCast.html: the bits of -0.0, which is a zero, are not all zero."""
    return Rule(labels=pass_labels_not_zero)


@register("Dropout")
def dropout(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Dropout.html: in inference its input; the mask is not zero."""
    return Rule(labels=pass_labels, zero=never if op.gives_more() else first)


@register("Cos")
def cosine(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Cos.html: of the angles of a position encoding, which leave with nothing."""

    def labels(flow: LabelFlow) -> None:
        flow.book.conflict |= flow.read(0).any
        flow.freeze(flow.read(0).ids, "Cos is not zero where the channel's variables are")

    return Rule(labels=labels)


@register("BitwiseNot", since_version=18)
@register("Acos", "Cosh", "Exp", "HardSigmoid", "IsInf", "IsNaN", "Not", "Sigmoid", "Softplus")
def not_zero_preserving(op: Op) -> Rule:
    """f(0) ≠ 0; https://onnx.ai/onnx/operators/"""
    return Rule(labels=pass_labels_not_zero)


@register("Acosh", "Log", "Reciprocal")
def not_finite_at_zero(op: Op) -> Rule:
    """f(0) is no finite number; https://onnx.ai/onnx/operators/"""

    def labels(flow: LabelFlow) -> None:
        freeze_at_pole(flow, 0)
        pass_labels_not_zero(flow)

    return Rule(labels=labels, poles=(0,))


@register("Clip")
def clip(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Clip.html: zero stays zero where the bounds include it."""
    bounds = []
    for position, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        if op.has(position):
            bounds.append(_number(op, position))
        else:
            bounds.append(op.attribute(name, default))
    keeps = bounds[0] <= 0 <= bounds[1]
    return Rule(labels=pass_labels if keeps else pass_labels_not_zero, zero=first if keeps else never)


def _number(op: Op, position: int) -> float:
    """The first number of a constant input; NaN where it is computed."""
    name = op.node.input[position]
    value = op.graph.constant(name)
    if value is None and name in op.graph.initializers:
        value = op.graph.array(name)
    return np.nan if value is None or not value.size else float(value.reshape(-1)[0])


@register("PRelu")
def prelu(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__PRelu.html"""
    by_channel = op.version() < 7 and elements(op.size(1) or (1,)) > 1

    def labels(flow: LabelFlow) -> None:
        if by_channel:
            flow.freeze_inputs("PRelu by channel before operator set 7")
        else:
            broadcast(flow, (0, 1), lambda zero: zero[0], trained=(1,))

    return Rule(labels=labels, zero=first, parameters={1: "slope"})


@register("Add", "Sum", "Sub")
def add(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Add.html and its siblings: a joint where it adds several activations."""
    positions = tuple(range(len(op.node.input)))
    activations = tuple(i for i in positions if op.is_activation(i))
    distinct = {op.node.input[i] for i in activations}
    trained = tuple(i for i in positions if op.node.op_type == "Add" and _is_vector_beside(op, i, activations))
    return Rule(
        labels=lambda flow: broadcast(flow, positions, all, trained=trained, kind=Kind.AFFINE),
        zero=all,
        parameters={i: "bias" for i in trained},  # what is subtracted is a mean rather than a bias
        joint=Joint(operands=activations) if len(distinct) > 1 and op.node.op_type != "Sub" else None,
    )


@register("Mul")
def mul(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Mul.html: a product is zero where any factor is, so it is no joint.

    A scalar trains where the model calls it a gate.
    """
    activations = tuple(i for i in (0, 1) if op.is_activation(i))
    trained = tuple(i for i in (0, 1) if _is_vector_beside(op, i, activations))
    gates = tuple(i for i in (0, 1) if op.node.input[i] in op.graph.gates and op.is_weight(i))
    return Rule(
        labels=lambda flow: broadcast(flow, (0, 1), any, trained=trained),
        zero=any,
        parameters={i: "scale" for i in trained} | {i: "gate" for i in gates},
        view=_scaled_view,
    )


def _scaled_view(flow: LabelFlow) -> Sequence[Ids] | None:
    """A weight times a number is a view of it."""
    for position, other in ((0, 1), (1, 0)):
        if elements(flow.size(other) or (2,)) == 1:
            return flow.factors(position)
    return None


@register("Div")
def div(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Div.html: 0 / x is zero only where x is a constant without zeros.

    Of channels it is too where they share an x: with x at zero those that stay are not finite either.
    """
    name = op.node.input[1]
    keeps = op.is_weight(1) and name in op.graph.initializers and bool(op.graph.array(name).all())

    def labels(flow: LabelFlow) -> None:
        shared = keeps or (op.is_activation(1) and not flow.read(1).any)
        if not keeps:
            freeze_at_pole(flow, 1)
        broadcast(flow, (0, 1), lambda zero: shared and zero[0])

    return Rule(labels=labels, zero=first if keeps else never, poles=() if keeps else (1,))


@register("Pow")
def power(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Pow.html: zero stays zero under a constant positive exponent."""
    keeps = op.node.input[1] in op.graph.initializers and bool((op.graph.array(op.node.input[1]) > 0).all())
    return _power_like(keeps, pole=0)


def _power_like(keeps: bool, pole: int) -> Rule:
    """Zero where the first operand is, if it `keeps` zero; otherwise not finite where the operand `pole` is zero."""

    def labels(flow: LabelFlow) -> None:
        if not keeps:
            freeze_at_pole(flow, pole)
        broadcast(flow, (0, 1), lambda zero: keeps and zero[0])

    return Rule(labels=labels, zero=first if keeps else never, poles=() if keeps else (pole,))


@register("Max", "Min", "Mean")
@register("BitwiseOr", "BitwiseXor", since_version=18)
def extremum(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Max.html and its siblings: zero where all operands are, and no joint.

    A constant that bounds on the other side of zero leaves it alone: min(max(x, 0), 6) is zero where x is.
    """
    bounds = tuple(_lets_zero_pass(op, name) for name in op.node.input)

    def zero(zeros: Sequence[bool]) -> bool:
        return not all(bounds) and all(is_zero or bound for is_zero, bound in zip(zeros, bounds, strict=True))

    return Rule(labels=lambda flow: broadcast(flow, tuple(range(len(bounds))), zero), zero=zero)


def _lets_zero_pass(op: Op, name: str) -> bool:
    if name not in op.graph.initializers:
        return False
    values = op.graph.array(name)
    return bool({"Min": values >= 0, "Max": values <= 0}.get(op.node.op_type, np.False_).all())


@register("BitwiseAnd", since_version=18)
@register("SwiGLU", since_version=28)
def zero_if_either(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__SwiGLU.html and onnx__BitwiseAnd.html: zero where either operand is."""
    return Rule(labels=lambda flow: broadcast(flow, (0, 1), any), zero=any)


@register("BitShift", since_version=11)
def bit_shift(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__BitShift.html: zero stays zero however far it is shifted."""
    return Rule(labels=lambda flow: broadcast(flow, (0, 1), lambda zero: zero[0]), zero=first)


@register("Mod")
def modulo(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Mod.html: 0 mod x is 0, but for x = 0."""
    return _power_like(False, pole=1)


@register("Where")
def where(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Where.html: zero where both branches are."""
    return Rule(
        labels=lambda flow: broadcast(flow, (0, 1, 2), lambda zero: zero[1] and zero[2]),
        zero=lambda zero: zero[1] and zero[2],
    )


@register("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor")
def compare(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Equal.html and its siblings: by channel, and not zero."""
    return Rule(labels=lambda flow: broadcast(flow, (0, 1), never))


@register("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Softmax.html: every channel counts in the sum."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        if not found.any:
            return
        rank = found.ids.ndim
        axis = op.attribute("axis", -1 if op.version() >= 13 else 1) % rank
        axes = (axis,) if op.version() >= 13 else range(axis, rank)
        mixed = flow.mix(found, axes, f"{op.node.op_type} normalises over its axis")
        flow.write(Labelled(mixed.ids, np.zeros_like(mixed.zero)))

    return Rule(labels=labels)


def _is_vector_beside(op: Op, position: int, activations: tuple[int, ...]) -> bool:
    """A weight of several elements beside one activation trains; a scalar (1/√d, a 3 in x + 3) is a constant."""
    size = op.size(position)
    return op.is_weight(position) and len(activations) == 1 and bool(size) and elements(size) > 1
