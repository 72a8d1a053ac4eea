"""Normalisations."""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, attribute_of, function


@function("BatchNormalization")
def batch_normalization(op: Operator) -> Compute:
    """Every channel by its mean and variance: the running ones, or in training form those of the batch.

    In training form the running ones are updated in place, with the population variance as ONNX says:
    running = momentum · running + (1 - momentum) · batch.
    """
    epsilon, share = op.attribute("epsilon", 1e-5), 1 - op.attribute("momentum", 0.9)
    if not op.attribute("training_mode", 0):
        return lambda x, scale, bias, mean, variance: torch.batch_norm(
            x, scale, bias, mean, variance, False, 0.0, epsilon, True
        )

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> list[Tensor]:
        result, of_batch, inverse = torch.native_batch_norm(x, scale, bias, None, None, True, 0.0, epsilon)
        with torch.no_grad():
            mean.lerp_(of_batch.to(mean.dtype), share)
            variance.lerp_((inverse.pow(-2) - epsilon).clamp_(0.0).to(variance.dtype), share)
        return [result, mean, variance]

    return run


def _gives_statistics(node: onnx.NodeProto) -> bool:
    """Are the mean or the deviation read: torch gives no gradient back from them."""
    return any(node.output[1:])


@function("LayerNormalization", unless=_gives_statistics)
def layer_normalization(op: Operator) -> Compute:
    """The last axes to mean zero and variance one."""
    axis, epsilon = op.attribute("axis", -1), op.attribute("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        scale = scale if scale.shape == shape else scale.expand(shape)
        bias = bias if bias is None or bias.shape == shape else bias.expand(shape)
        return F.layer_norm(x, shape, scale, bias, epsilon)

    return run


@function("GroupNormalization")
def group_normalization(op: Operator) -> Compute:
    """Groups of channels to mean zero and variance one; before opset 21 scale and bias are given by group."""
    groups, epsilon = op.attribute("num_groups"), op.attribute("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if scale.numel() != x.shape[1]:
            times = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(times), bias.repeat_interleave(times)
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


@function("InstanceNormalization")
def instance_normalization(op: Operator) -> Compute:
    """Every channel of every image to mean zero and variance one."""
    epsilon = op.attribute("epsilon", 1e-5)
    return lambda x, scale, bias: F.group_norm(x, x.shape[1], scale, bias, epsilon)


@function("LRN", unless=lambda node: attribute_of(node, "size") % 2 == 0)
def local_response_normalization(op: Operator) -> Compute:
    """The input over a power of the sum of squares in a window of channels."""
    size, alpha = op.attribute("size"), op.attribute("alpha", 1e-4)
    beta, bias = op.attribute("beta", 0.75), op.attribute("bias", 1.0)
    return lambda x: F.local_response_norm(x, size, alpha, beta, bias)
