"""Normalisations."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnx_asgnas.training.lowering.reduce import p_norm
from onnx_asgnas.training.lowering.registry import MICROSOFT, Rewrite, rewrite
from onnx_asgnas.training.lowering.site import Site, Value


def batch_normalization(statistics: Collection[str], frozen: bool) -> Rewrite:
    """BatchNormalization in training form, or in inference form where it is frozen or its statistics are not ours.

    In training form it uses the batch's statistics, and a run updates the running ones in place: running = momentum *
    running + (1 - momentum) * batch (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html).
    """

    def rule(site: Site) -> Value:
        given = {name: site.attribute(name) for name in ("epsilon", "momentum")}
        trains = not frozen and set(site.node.input[3:5]) <= set(statistics)
        if trains:
            return site.ops("BatchNormalization", 3, *site.inputs(), training_mode=1, **given)[0]
        if site.graph.is_native(site.node):
            return site.op("BatchNormalization", *site.inputs(), **given)
        x, scale, bias, mean, variance = site.inputs()
        factor = scale / (variance + site.attribute("epsilon", 1e-5)).sqrt()
        return x * _along(factor, x, 1) + _along(bias - mean * factor, x, 1)

    return rule


def _along(vector: Value, x: Value, axis: int) -> Value:
    """A vector along one axis of x."""
    behind = x.rank - axis - 1
    return vector.reshape(-1, *[1] * behind) if behind else vector


@rewrite("LayerNormalization")
def rewrite_layer_normalization(site: Site) -> list[Value]:
    """LayerNormalization with a bias and all three outputs, without which its gradient does not build.

    Where the mean or the deviation are read it is written out: no gradient would come back from them.
    """
    x, scale = site.input(0), site.input(1)
    axis, epsilon = site.axis(-1, x.rank), site.attribute("epsilon", 1e-5)
    if site.wants(1) or site.wants(2):
        axes = range(axis, x.rank)
        centred, deviation = _centred(x, axes, epsilon)
        result = centred / deviation * scale
        return [result + site.input(2) if site.has(2) else result, x.mean(list(axes)), 1.0 / deviation]
    bias = site.input(2) if site.has(2) else site.filled(0.0, scale.dims(), x)
    return [site.kept("LayerNormalization", x, scale, bias, outputs=3, axis=axis - x.rank, epsilon=epsilon)]


def _centred(x: Value, axes: Collection[int], epsilon: float) -> tuple[Value, Value]:
    """X less its mean over these axes, and its deviation."""
    centred = x - x.mean(list(axes))
    return centred, ((centred * centred).mean(list(axes)) + epsilon).sqrt()


def root_mean_square(x: Value, axes: Collection[int], epsilon: float) -> Value:
    """X over its root mean square on these axes."""
    return x / ((x * x).mean(list(axes)) + epsilon).sqrt()


@rewrite("RMSNormalization", "SimplifiedLayerNormalization")
@rewrite("SimplifiedLayerNormalization", domain=MICROSOFT)
def rewrite_rms_normalization(site: Site) -> Value:
    """X over its root mean square, times a scale."""
    x, scale = site.input(0), site.input(1)
    axes = range(site.axis(-1, x.rank), x.rank)
    return root_mean_square(x, axes, site.attribute("epsilon", 1e-5)) * scale


@rewrite("InstanceNormalization")
def rewrite_instance_normalization(site: Site) -> Value:
    """Every channel of every image to mean zero and variance one."""
    x, scale, bias = site.inputs()
    centred, deviation = _centred(x, range(2, x.rank), site.attribute("epsilon", 1e-5))
    return centred / deviation * _along(scale, x, 1) + _along(bias, x, 1)


@rewrite("GroupNormalization")
def rewrite_group_normalization(site: Site) -> Value:
    """Groups of channels to mean zero and variance one; before opset 21 scale and bias were given by group."""
    x, scale, bias = site.inputs()
    groups = site.attribute("num_groups")
    grouped = x.reshape(x.dim(0), groups, -1)
    centred, deviation = _centred(grouped, [2], site.attribute("epsilon", 1e-5))
    normal = centred / deviation
    if site.graph.opset < 21:
        scaled = normal * scale.reshape(-1, 1) + bias.reshape(-1, 1)
        return scaled.reshape(*x.dims())
    return normal.reshape(*x.dims()) * _along(scale, x, 1) + _along(bias, x, 1)


@rewrite("MeanVarianceNormalization")
def rewrite_mean_variance_normalization(site: Site) -> Value:
    """To mean zero and variance one over some axes; 1e-9 is added to the deviation."""
    x = site.input()
    axes = [axis % x.rank for axis in site.attribute("axes", [0, 2, 3])]
    centred, deviation = _centred(x, axes, 0.0)
    return centred / (deviation + 1e-9)


@rewrite("LpNormalization")
def rewrite_lp_normalization(site: Site) -> Value:
    """X over its p-norm along an axis; zero stays zero."""
    x = site.input()
    length = p_norm(x, site.attribute("p", 2), [site.axis(-1, x.rank)])
    return x / site.where(length.detach().equals(0.0), 1.0, length)


@rewrite("LRN")
def rewrite_local_response_normalization(site: Site) -> Value:
    """X over a power of the sum of squares in a window of channels: a product with a band of ones."""
    x = site.input()
    channels, size = x.fixed_size(1, "window"), site.attribute("size")
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    places = np.arange(channels)
    apart = places[None] - places[:, None]
    band = ((-before <= apart) & (apart <= after)).astype(x.dtype) * (site.attribute("alpha", 1e-4) / size)
    squares = (x * x).reshape(x.dim(0), channels, -1)
    near = (site.constant(band.astype(x.dtype)) @ squares).reshape(*x.dims()) + site.attribute("bias", 1.0)
    return x * site.op("Pow", near, site.number(-site.attribute("beta", 0.75), x))
