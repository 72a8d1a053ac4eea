"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, direct, function

direct(
    {
        "HardSwish": F.hardswish,
        "Mish": F.mish,
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Softplus": F.softplus,
        "Softsign": F.softsign,
        "Tanh": torch.tanh,
    }
)


@function("LeakyRelu")
def leaky_relu(op: Operator) -> Compute:
    """Negative values times alpha."""
    alpha = op.attribute("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@function("PRelu")
def prelu(op: Operator) -> Compute:
    """Negative values times a slope that trains."""
    return lambda x, slope: torch.where(x < 0, x * slope, x)


@function("Elu")
def elu(op: Operator) -> Compute:
    """Below zero alpha · (exp(x) - 1)."""
    alpha = op.attribute("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@function("Celu")
def celu(op: Operator) -> Compute:
    """Below zero alpha · (exp(x / alpha) - 1)."""
    alpha = op.attribute("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@function("Selu")
def selu(op: Operator) -> Compute:
    """An ELU times gamma."""
    alpha, gamma = op.attribute("alpha", 1.67326319217681884765625), op.attribute("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@function("ThresholdedRelu")
def thresholded_relu(op: Operator) -> Compute:
    """Zero up to alpha."""
    alpha = op.attribute("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@function("HardSigmoid")
def hard_sigmoid(op: Operator) -> Compute:
    """The line alpha · x + beta, between 0 and 1."""
    alpha, beta = op.attribute("alpha", 0.2), op.attribute("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


@function("Gelu")
def gelu(op: Operator) -> Compute:
    """The product x · Φ(x), or its approximation by tanh."""
    approximate = op.attribute("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@function("Shrink")
def shrink(op: Operator) -> Compute:
    """Zero within ±lambd, and moved by the bias towards zero beyond."""
    bias, bound = op.attribute("bias", 0.0), op.attribute("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        return torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, zero))

    return run


@function("Softmax", "LogSoftmax")
def softmax(op: Operator) -> Compute:
    """exp(x) over its sum along an axis, or the logarithm of that."""
    axis = op.attribute("axis", -1)
    compute = torch.softmax if op.node.op_type == "Softmax" else torch.log_softmax
    return lambda x: compute(x, axis)


@function("Hardmax")
def hardmax(op: Operator) -> Compute:
    """One at the first of the largest values along an axis, zero elsewhere."""
    axis = op.attribute("axis", -1)
    return lambda x: torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)
