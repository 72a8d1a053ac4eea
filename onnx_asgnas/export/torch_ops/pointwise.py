"""Operators that work element by element: activations, arithmetic, comparisons, casts."""

from __future__ import annotations

from functools import reduce as fold

import numpy as np
from onnx import TensorProto

from onnx_asgnas.export.code import Code, Expression, Lit, Step, call, infix, method, tuple_of
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site, dtype
from onnx_asgnas.export.torch_ops.lengths import arithmetic_of_lengths

_FUNCTIONS = {
    "Abs": "torch.abs",
    "Acos": "torch.acos",
    "Acosh": "torch.acosh",
    "Asin": "torch.asin",
    "Asinh": "torch.asinh",
    "Atan": "torch.atan",
    "Atanh": "torch.atanh",
    "Ceil": "torch.ceil",
    "Cos": "torch.cos",
    "Cosh": "torch.cosh",
    "Erf": "torch.erf",
    "Exp": "torch.exp",
    "Floor": "torch.floor",
    "IsNaN": "torch.isnan",
    "Log": "torch.log",
    "Neg": "torch.neg",
    "Not": "torch.logical_not",
    "Reciprocal": "torch.reciprocal",
    "Round": "torch.round",
    "Sign": "torch.sign",
    "Sin": "torch.sin",
    "Sinh": "torch.sinh",
    "Softsign": "F.softsign",
    "Sqrt": "torch.sqrt",
    "Tan": "torch.tan",
}
_ACTIVATIONS = {
    "HardSwish": ("F.hardswish", "nn.Hardswish"),
    "Mish": ("F.mish", "nn.Mish"),
    "Relu": ("F.relu", "nn.ReLU"),
    "Selu": ("F.selu", "nn.SELU"),
    "Sigmoid": ("torch.sigmoid", "nn.Sigmoid"),
    "Softplus": ("F.softplus", "nn.Softplus"),
    "Tanh": ("torch.tanh", "nn.Tanh"),
}
_INFIX = {
    "Add": "+",
    "And": "&",
    "BitwiseAnd": "&",
    "BitwiseOr": "|",
    "BitwiseXor": "^",
    "Equal": "==",
    "Greater": ">",
    "GreaterOrEqual": ">=",
    "Less": "<",
    "LessOrEqual": "<=",
    "Mul": "*",
    "Or": "|",
    "Pow": "**",
    "Sub": "-",
    "Xor": "^",
}
_SELU = (1.6732632423543772, 1.0507009873554805)


@writes(*_FUNCTIONS)
def function(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Abs.html and its like: one function of one tensor."""
    return site.step(call(_FUNCTIONS[site.node.op_type], site[0]))


@writes("IsInf", since_version=10)
def is_inf(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__IsInf.html"""
    positive, negative = site.attribute("detect_positive", 1), site.attribute("detect_negative", 1)
    if positive and negative:
        return site.step(call("torch.isinf", site[0]))
    if positive == negative:
        return site.step(call("torch.zeros_like", site[0], dtype=Code("torch.bool")))
    return site.step(call("torch.isposinf" if positive else "torch.isneginf", site[0]))


@writes(*_ACTIVATIONS)
def activation(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Relu.html and its like: activations without other settings."""
    if site.node.op_type == "Selu":
        given = (site.attribute("alpha", _SELU[0]), site.attribute("gamma", _SELU[1]))
        if not np.allclose(given, _SELU, rtol=1e-6):
            raise site.refused("its alpha and gamma are not those of PyTorch")
    written, module = _ACTIVATIONS[site.node.op_type]
    return site.step(call(written, site[0]), module=call(module))


def _set(site: Site, name: str, default: float) -> Lit:
    """A float attribute, which ONNX stores in single precision."""
    return Lit(float(str(np.float32(site.attribute(name, default)))), name)


@writes("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "HardSigmoid", "Shrink")
def set_activation(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__LeakyRelu.html and its like: activations with a number or two."""
    match site.node.op_type:
        case "LeakyRelu":
            slope = _set(site, "alpha", 0.01)
            return site.step(call("F.leaky_relu", site[0], slope), module=call("nn.LeakyReLU", slope))
        case "Elu" | "Celu" as name:
            alpha = _set(site, "alpha", 1.0)
            return site.step(call(f"F.{name.lower()}", site[0], alpha), module=call(f"nn.{name.upper()}", alpha))
        case "ThresholdedRelu":
            return site.step(call("F.threshold", site[0], _set(site, "alpha", 1.0), Lit(0.0, "value")))
        case "HardSigmoid":
            return _hard_sigmoid(site)
        case _:
            if site.attribute("bias", 0.0):
                raise site.refused("it has a bias")
            return site.step(call("F.hardshrink", site[0], _set(site, "lambd", 0.5)))


def _hard_sigmoid(site: Site) -> Step:
    alpha, beta = _set(site, "alpha", 0.2), _set(site, "beta", 0.5)
    if np.isclose(site.attribute("alpha", 0.2), 1 / 6, rtol=1e-6) and beta.value == 0.5:
        return site.step(call("F.hardsigmoid", site[0]), module=call("nn.Hardsigmoid"))
    line = infix("+", infix("*", site[0], alpha), beta)
    return site.step(method(line, "clamp", Lit(0, "low"), Lit(1, "high")))


@writes("PRelu")
def prelu(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__PRelu.html; the slope broadcasts as in ONNX, not as in nn.PReLU."""
    positive, negative = call("F.relu", site[0]), call("F.relu", infix("*", Lit(-1, "sign"), site[0]))
    return site.step(infix("-", positive, infix("*", site[1], negative)))


@writes("Gelu")
def gelu(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Gelu.html"""
    approximate = site.attribute("approximate", "none")
    if approximate == "none":
        return site.step(call("F.gelu", site[0]), module=call("nn.GELU"))
    tanh = Lit("tanh", "approximate")
    return site.step(call("F.gelu", site[0], approximate=tanh), module=call("nn.GELU", approximate=tanh))


@writes("Swish")
def swish(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Swish.html"""
    if site.attribute("alpha", 1.0) == 1.0:
        return site.step(call("F.silu", site[0]), module=call("nn.SiLU"))
    return site.step(infix("*", site[0], call("torch.sigmoid", infix("*", site[0], _set(site, "alpha", 1.0)))))


@writes(*_INFIX)
def arithmetic(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Add.html and its like: two operands, broadcast."""
    lengths = arithmetic_of_lengths(site)
    if lengths is not None:
        return lengths
    left, right = _operands(site)
    operator = _INFIX[site.node.op_type]
    if operator == "**" and site.dtype(0) != site.dtype(1) and not isinstance(right, Lit):
        right = method(right, "to", dtype(site.dtype(0)))
    return site.step(call("torch.pow", left, right) if operator == "**" else infix(operator, left, right))


def _operands(site: Site) -> tuple[Expression, Expression]:
    """Both operands, single numbers as such; one of the two stays a tensor."""
    left, right = site.operand(0), site.operand(1)
    return (site[0] if isinstance(left, Lit) and isinstance(right, Lit) else left), right


@writes("Div")
def div(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Div.html; whole numbers are divided towards zero."""
    lengths = arithmetic_of_lengths(site)
    if lengths is not None:
        return lengths
    left, right = _operands(site)
    if site.is_whole(0):
        left = site[0] if isinstance(left, Lit) else left
        return site.step(call("torch.div", left, right, rounding_mode=Lit("trunc", "rounding")))
    return site.step(infix("/", left, right))


@writes("Mod")
def mod(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Mod.html"""
    name = "torch.fmod" if site.attribute("fmod", 0) else "torch.remainder"
    return site.step(call(name, site[0], site.operand(1)))


@writes("Min", "Max")
def extreme(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Max.html"""
    name = "torch.minimum" if site.node.op_type == "Min" else "torch.maximum"
    operands = [site[at] for at in range(len(site.node.input))]
    return site.step(fold(lambda a, b: call(name, a, b), operands))


@writes("Sum", "Mean")
def total(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Sum.html"""
    count = len(site.node.input)
    added: Expression = fold(lambda a, b: infix("+", a, b), [site[at] for at in range(count)])
    return site.step(infix("/", added, Lit(count, "count")) if site.node.op_type == "Mean" else added)


@writes("Clip")
def clip(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Clip.html; bounds were attributes before version 11."""
    low: Expression | None
    high: Expression | None
    if site.version < 11:
        low, high = (None if site.attribute(name) is None else _set(site, name, 0.0) for name in ("min", "max"))
    else:
        low, high = (_bound(site, 1), _bound(site, 2))
    values = tuple(bound.value if isinstance(bound, Lit) else bound for bound in (low, high))
    if values == (0, 6):
        return site.step(call("F.relu6", site[0]), module=call("nn.ReLU6"))
    none = Lit(None, "bound")
    if low is None and high is None:
        return site.step(site[0])
    if high is None:
        return site.step(call("torch.clamp", site[0], low or none))
    return site.step(call("torch.clamp", site[0], low or none, high))


def _bound(site: Site, at: int) -> Expression | None:
    if not site.has(at):
        return None
    array = site.array(at)
    if array is not None and array.size == 1 and not np.isfinite(array.reshape(-1)[0]):
        return None
    return site.operand(at)


@writes("Where")
def where(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Where.html"""
    condition = site.array(0)
    if condition is not None and condition.ndim == 1 and site.is_host(1) and site.is_host(2):
        chosen = [site.items(1 if yes else 2) for yes in condition]
        items = tuple(each[at if len(each) > 1 else 0] for at, each in enumerate(chosen))
        return site.step(tuple_of(items), rank=1)
    first, second = site.operand(1), site.operand(2)
    if isinstance(first, Lit) and isinstance(second, Lit) and site.dtype(1) != TensorProto.FLOAT:
        first, second = site[1], site[2]  # two numbers give a tensor of the usual type
    return site.step(call("torch.where", site[0], first, second))


@writes("Cast", "CastLike")
def cast(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Cast.html; lengths stay Python's whole numbers."""
    kind = site.attribute("to") if site.node.op_type == "Cast" else site.dtype(1)
    if site.is_host(0) and site.node.input[0] in site.host and kind in (6, 7):
        return site.step(site.lengths(0), rank=site.host_rank(0))
    if site.dtype(0) == kind:
        return site.step(site[0])
    return site.step(method(site[0], "to", dtype(kind)))


@writes("Identity", "Dropout")
def identity(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Identity.html; in its inference form a Dropout is one."""
    if len([name for name in site.node.output if name]) > 1:
        raise site.refused("its mask is read")
    if site.node.input[0] in site.host:
        return site.step(site.lengths(0), rank=site.host_rank(0))
    return site.step(site[0])
