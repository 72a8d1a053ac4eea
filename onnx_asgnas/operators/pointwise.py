"""Operators that work on each element by itself, with broadcasting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_asgnas.operators.labels import Kind, LabelFlow, Labelled
from onnx_asgnas.operators.registry import Joint, Op, Rule, ZeroRule, first, never, register


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


@register("Abs", "Cast", "Ceil", "Celu", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish")
@register("Neg", "Relu", "Round", "Selu", "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh")
@register("Asin", "Asinh", "Atan", "Atanh", "CastLike", "ThresholdedRelu")
def zero_preserving(op: Op) -> Rule:
    """f(0) = 0; https://onnx.ai/onnx/operators/"""
    return Rule(labels=pass_labels, zero=first)


@register("Dropout")
def dropout(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Dropout.html: in inference its input; the mask is not zero."""
    return Rule(labels=pass_labels, zero=never if op.gives_more() else first)


@register("Acos", "Cos", "Cosh", "Exp", "HardSigmoid", "Not", "Sigmoid", "Softplus")
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
            name_of_bound = op.node.input[position]
            known = name_of_bound in op.graph.initializers
            bounds.append(float(op.graph.array(name_of_bound).reshape(-1)[0]) if known else np.nan)
        else:
            bounds.append(op.attribute(name, default))
    keeps = bounds[0] <= 0 <= bounds[1]
    return Rule(labels=pass_labels if keeps else pass_labels_not_zero, zero=first if keeps else never)


@register("PRelu")
def prelu(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__PRelu.html"""

    def labels(flow: LabelFlow) -> None:
        if op.size(1) and np.prod(op.size(1)) > 1:
            _meet(flow, (0, 1), Kind.CUT, any)
        else:
            pass_labels(flow)

    return Rule(labels=labels, zero=first, parameters={1: "slope"})


@register("Add", "Sum", "Sub")
def add(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Add.html and its siblings: a joint where it adds several activations."""
    positions = tuple(range(len(op.node.input)))
    activations = tuple(i for i in positions if op.is_activation(i))
    distinct = {op.node.input[i] for i in activations}
    trains = op.node.op_type == "Add"  # what is subtracted is a mean rather than a bias
    return Rule(
        labels=lambda flow: _meet(flow, positions, Kind.AFFINE if trains else Kind.CUT, all),
        zero=all,
        parameters={i: "bias" for i in positions if trains and _is_vector_beside(op, i, activations)},
        joint=Joint(operands=activations) if len(distinct) > 1 and op.node.op_type != "Sub" else None,
    )


@register("Mul")
def mul(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Mul.html: a product is zero where any factor is, so it is no joint."""
    activations = tuple(i for i in (0, 1) if op.is_activation(i))
    return Rule(
        labels=lambda flow: _meet(flow, (0, 1), Kind.CUT, any),
        zero=any,
        parameters={i: "scale" for i in (0, 1) if _is_vector_beside(op, i, activations)},
    )


@register("Div")
def div(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Div.html: 0 / x is zero only where x is a constant without zeros."""
    keeps = (
        op.is_weight(1) and op.node.input[1] in op.graph.initializers and bool(op.graph.array(op.node.input[1]).all())
    )
    return _power_like(keeps, pole=1)


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
        _meet(flow, (0, 1), Kind.CUT, lambda zero: keeps and zero[0])

    return Rule(labels=labels, zero=first if keeps else never, poles=() if keeps else (pole,))


@register("Max", "Min")
def extremum(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Max.html: zero where all operands are."""
    return Rule(labels=lambda flow: _meet(flow, tuple(range(len(op.node.input))), Kind.CUT, all), zero=all)


@register("Where")
def where(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Where.html: zero where both branches are."""
    return Rule(
        labels=lambda flow: flow.freeze_inputs("Where chooses between channels"), zero=lambda zero: zero[1] and zero[2]
    )


@register("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "IsNaN", "IsInf")
def compare(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Equal.html and its siblings"""
    return Rule(labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} compares channels"))


@register("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Softmax.html: every channel counts in the sum."""
    return Rule(labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} normalises over its axis"))


def _is_vector_beside(op: Op, position: int, activations: tuple[int, ...]) -> bool:
    """A weight of several elements beside one activation trains; a scalar (1/√d, a 3 in x + 3) is a constant."""
    size = op.size(position)
    return op.is_weight(position) and len(activations) == 1 and bool(size) and int(np.prod(size)) > 1


def _meet(flow: LabelFlow, positions: tuple[int, ...], weight_kind: Kind, zero_rule: ZeroRule) -> None:
    """Broadcast the operands against each other: labels at the same place are tied."""
    sizes = [flow.book.graph.size(flow.node.input[p]) for p in positions]
    if any(size is None for size in sizes):
        flow.freeze_inputs("the shape of an operand is unknown")
        return
    known = [size for size in sizes if size is not None]
    rank = max(len(size) for size in known)
    result: _Operand | None = None
    for position, size in zip(positions, known, strict=True):
        operand = _operand(flow, position, (1,) * (rank - len(size)) + size, weight_kind)
        result = operand if result is None else _tied(flow, result, operand, zero_rule)
    if result is not None:
        flow.write(result.labels)


@dataclass(frozen=True, slots=True)
class _Operand:
    """An operand's labels, with as many axes as the output, and its sizes along them."""

    labels: Labelled
    size: tuple[int, ...]


def _operand(flow: LabelFlow, position: int, size: tuple[int, ...], kind: Kind) -> _Operand:
    """One operand; a weight that varies along a single axis has labels of its own there."""
    found, name = flow.read(position), flow.node.input[position]
    long = [axis for axis, n in enumerate(size) if n > 1]
    if not found.any and name in flow.book.graph.initializers and len(long) == 1:
        own = flow.weight_axis(position, long[0] - len(size), kind)
        shape = [1] * len(size)
        shape[long[0]] = len(own)
        return _Operand(Labelled(own.reshape(shape), np.full(shape, kind is Kind.AFFINE)), size)
    lead = (1,) * (len(size) - found.ids.ndim)
    return _Operand(
        Labelled(found.ids.reshape(lead + found.ids.shape), found.zero.reshape(lead + found.zero.shape)), size
    )


def _tied(flow: LabelFlow, one: _Operand, two: _Operand, zero_rule: ZeroRule) -> _Operand:
    """Tie two operands; labels that meet a channel without a label stay."""
    shape = np.broadcast_shapes(one.labels.ids.shape, two.labels.ids.shape)
    ids = [np.broadcast_to(o.labels.ids, shape) for o in (one, two)]
    bits = [np.broadcast_to(o.labels.zero, shape) for o in (one, two)]
    reason = f"{flow.node.op_type} with an operand whose channels cannot leave"
    for own, other, operand in ((ids[0], ids[1], two), (ids[1], ids[0], one)):
        broad = all(n == 1 or operand.size[axis] == 1 for axis, n in enumerate(shape))
        if not broad:
            flow.freeze(own[other < 0], reason)
    both = (ids[0] >= 0) & (ids[1] >= 0)
    if both.any():
        flow.book.ties.append((ids[0][both], ids[1][both]))
    zero = np.zeros(shape, bool)
    for pair in ((False, False), (False, True), (True, False), (True, True)):
        zero[(bits[0] == pair[0]) & (bits[1] == pair[1])] = zero_rule(pair)
    size = tuple(max(a, b) for a, b in zip(one.size, two.size, strict=True))
    return _Operand(Labelled(np.where(ids[0] >= 0, ids[0], ids[1]), zero), size)
