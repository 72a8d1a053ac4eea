"""Operators that act element by element.

Where a formula holds an exponential, its argument is kept from growing, so that the branch that is not taken gives no
infinity: zero times infinity would be the gradient.
"""

from __future__ import annotations

from functools import reduce
from math import pi, sqrt
from operator import add

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Site, Value


@rewrite("Sum")
def rewrite_sum(site: Site) -> Value:
    """Sum has no gradient: a chain of Adds."""
    return reduce(add, site.inputs())


@rewrite("Mean")
def rewrite_mean(site: Site) -> Value:
    """Mean: the sum of the operands times 1/n."""
    return reduce(add, site.inputs()) * (1 / len(site.node.input))


@rewrite("Max", "Min")
def rewrite_extreme(site: Site) -> Value:
    """Max and Min have a gradient for two operands: a chain of those."""
    return reduce(lambda one, other: site.op(site.node.op_type, one, other), site.inputs())


@rewrite("Dropout")
def rewrite_dropout(site: Site) -> list[Value | None]:
    """Dropout is off in normal form; its mask is all true."""
    x = site.input()
    mask = x.detach().equals(x.detach()) if site.wants(1) else None
    return [x, mask]


@rewrite("Pow")
def rewrite_pow(site: Site) -> Value:
    """Pow with an exponent of the type of its base, which the gradient multiplies by; squares and cubes as products.

    The runtime has no gradient for the exponent: where one is asked for, x^y = exp(y log |x|) cos(π y [x < 0]).
    """
    x, power = site.input(0), site.input(1)
    value = power.constant
    scalar = value is not None and value.size == 1 and (not value.ndim or (x.has_rank and value.ndim <= x.rank))
    if value is not None and scalar and float(value.item()) in (1, 2, 3):
        return reduce(lambda one, other: one * other, [x] * int(value.item()))
    if power.name not in site.graph.reached:
        return site.kept("Pow", x, power.cast(x.dtype))
    size = site.op("Abs", x)
    none = x.equals(0.0)
    result = (power.cast(x.dtype) * site.op("Log", site.where(none, 1.0, size))).exp()
    result = result * site.where(x < 0.0, site.op("Cos", power.cast(x.dtype) * pi), 1.0)
    return site.where(none, power.equals(0.0).cast(x.dtype), result)


@rewrite("CastLike")
def rewrite_cast_like(site: Site) -> Value:
    """A Cast to the type of the second input."""
    return site.input(0).cast(site.input(1).dtype)


@rewrite("Elu")
def rewrite_elu(site: Site) -> Value:
    """X where it is positive, else alpha (exp(x) - 1)."""
    return _elu(site.input(), site.attribute("alpha", 1.0))


def _elu(x: Value, alpha: float) -> Value:
    return x.relu() + alpha * ((-(-x).relu()).exp() - 1.0)


@rewrite("Selu")
def rewrite_selu(site: Site) -> Value:
    """Gamma Elu(x)."""
    alpha = site.attribute("alpha", 1.67326319217681884765625)
    return _elu(site.input(), alpha) * float(site.attribute("gamma", 1.05070102214813232421875))


@rewrite("Celu")
def rewrite_celu(site: Site) -> Value:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    x, alpha = site.input(), float(site.attribute("alpha", 1.0))
    return x.relu() + ((-(-x * (1 / alpha)).relu()).exp() - 1.0) * alpha


@rewrite("HardSigmoid")
def rewrite_hard_sigmoid(site: Site) -> Value:
    """clip(alpha x + beta, 0, 1)."""
    return _hard_sigmoid(site.input(), site.attribute("alpha", 0.2), site.attribute("beta", 0.5))


def _hard_sigmoid(x: Value, alpha: float, beta: float) -> Value:
    scaled = x * alpha + beta
    return x.site.op("Clip", scaled, x.site.number(0.0, x), x.site.number(1.0, x))


@rewrite("HardSwish")
def rewrite_hard_swish(site: Site) -> Value:
    """X HardSigmoid(x) with slope 1/6."""
    x = site.input()
    return x * _hard_sigmoid(x, 1 / 6, 0.5)


@rewrite("ThresholdedRelu")
def rewrite_thresholded_relu(site: Site) -> Value:
    """X where it is above alpha, else zero."""
    x = site.input()
    return site.where(x > site.attribute("alpha", 1.0), x, 0.0)


@rewrite("Shrink")
def rewrite_shrink(site: Site) -> Value:
    """X moved towards zero by bias where it is beyond ±lambd, else zero."""
    x, edge, bias = site.input(), site.attribute("lambd", 0.5), site.attribute("bias", 0.0)
    return site.where(x < -edge, x + bias, site.where(x > edge, x - bias, 0.0))


@rewrite("PRelu")
def rewrite_prelu(site: Site) -> Value:
    """X where it is positive, else slope x."""
    x, slope = site.input(0), site.input(1)
    return x.relu() - slope * (-x).relu()


@rewrite("Softplus")
def rewrite_softplus(site: Site) -> Value:
    """log(1 + exp(x)), without its exponential overflowing."""
    x = site.input()
    return x.relu() + site.op("Log", (-site.op("Abs", x)).exp() + 1.0)


@rewrite("Softsign")
def rewrite_softsign(site: Site) -> Value:
    """X / (1 + |x|)."""
    x = site.input()
    return x / (site.op("Abs", x) + 1.0)


@rewrite("Mish")
def rewrite_mish(site: Site) -> Value:
    """X tanh(softplus(x))."""
    x = site.input()
    return x * site.op("Softplus", x).tanh()


@rewrite("Swish")
def rewrite_swish(site: Site) -> Value:
    """X sigmoid(alpha x)."""
    x, alpha = site.input(), site.attribute("alpha", 1.0)
    return x * (x if alpha == 1 else x * alpha).sigmoid()


@rewrite("Gelu")
def rewrite_gelu(site: Site) -> Value:
    """X Φ(x), by the error function or its approximation by tanh."""
    x = site.input()
    return gelu_by_tanh(x) if site.attribute("approximate", "none") == "tanh" else gelu(x)


def gelu(x: Value) -> Value:
    """X Φ(x)."""
    return x * 0.5 * (x.site.op("Erf", x * sqrt(0.5)) + 1.0)


def gelu_by_tanh(x: Value) -> Value:
    """X Φ(x), nearly."""
    return x * 0.5 * ((sqrt(2 / pi) * (x + 0.044715 * (x * x * x))).tanh() + 1.0)


@rewrite("Mod")
def rewrite_mod(site: Site) -> Value:
    """X - y ⌊x / y⌋ (or towards zero): the quotient is constant almost everywhere."""
    x, y = site.input(0), site.input(1)
    fixed_x, fixed_y = x.detach(), y.detach()
    if not site.attribute("fmod", 0):
        return x - site.op("Floor", fixed_x / fixed_y) * y
    rest = site.op("Mod", fixed_x, fixed_y, fmod=1)
    times = site.op("Round", (fixed_x - rest) / fixed_y)
    return rest + ((x - fixed_x) - times * (y - fixed_y))
