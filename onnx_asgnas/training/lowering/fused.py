"""What onnxruntime's optimiser makes of several operators, taken apart again."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_asgnas.training.lowering.norm import root_mean_square
from onnx_asgnas.training.lowering.pointwise import gelu, gelu_by_tanh
from onnx_asgnas.training.lowering.registry import MICROSOFT, rewrite
from onnx_asgnas.training.lowering.site import Site, Value


@rewrite("Gelu", domain=MICROSOFT)
def rewrite_gelu(site: Site) -> Value:
    """The Gaussian error linear unit."""
    return gelu(site.input())


@rewrite("BiasGelu", domain=MICROSOFT)
def rewrite_bias_gelu(site: Site) -> Value:
    """Gelu of x and a bias."""
    return gelu(site.input(0) + site.input(1))


@rewrite("FastGelu", domain=MICROSOFT)
def rewrite_fast_gelu(site: Site) -> Value:
    """Gelu by tanh, of x and perhaps a bias."""
    return gelu_by_tanh(site.input(0) + site.input(1) if site.has(1) else site.input(0))


@rewrite("GemmFastGelu", domain=MICROSOFT)
def rewrite_gemm_fast_gelu(site: Site) -> Value:
    """Gelu by tanh of a product, and perhaps a bias."""
    product = site.input(0) @ site.input(1)
    return gelu_by_tanh(product + site.input(2) if site.has(2) else product)


@rewrite("QuickGelu", domain=MICROSOFT)
def rewrite_quick_gelu(site: Site) -> Value:
    """Gelu by a sigmoid: x sigmoid(alpha x)."""
    x = site.input()
    return x * (x * float(site.attribute("alpha", 1.702))).sigmoid()


@rewrite("BiasSplitGelu", domain=MICROSOFT)
def rewrite_bias_split_gelu(site: Site) -> Value:
    """One half of the channels times Gelu of the other."""
    x = site.input(0) + site.input(1)
    one, other = x.split(x.rank - 1, [x.fixed_size(-1, "halves") // 2] * 2)
    return one * gelu(other)


@rewrite("BiasAdd", domain=MICROSOFT)
def rewrite_bias_add(site: Site) -> Value:
    """x, a bias and a skip connection."""
    return site.input(0) + site.input(1) + site.input(2)


@rewrite("BiasSoftmax", domain=MICROSOFT)
def rewrite_bias_softmax(site: Site) -> Value:
    """Softmax of x and a bias, over all axes from `axis` on."""
    x = site.input(0)
    axis = site.axis(1, x.rank)
    bias = site.input(1)
    if not site.attribute("is_inner_broadcast", 1):
        raise site.refusal("its bias repeats along inner axes")
    total = x + bias
    if axis == x.rank - 1:
        return total.softmax()
    return total.reshape(*x.dims(0, axis), -1).softmax().reshape(*x.dims())


@rewrite("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def rewrite_fused_matmul(site: Site) -> Value:
    """The product alpha A B, with either transposed."""
    one, other = site.input(0), site.input(1)
    if site.attribute("transBatchA", 0) or site.attribute("transBatchB", 0):
        raise site.refusal("it moves the batch axis")
    if site.attribute("transA", 0):
        one = one.swap(one.rank - 2, one.rank - 1)
    if site.attribute("transB", 0):
        other = other.swap(other.rank - 2, other.rank - 1)
    alpha = site.attribute("alpha", 1.0)
    return (one if alpha == 1 else one * alpha) @ other


@rewrite("FusedGemm", domain=MICROSOFT)
def rewrite_fused_gemm(site: Site) -> Value:
    """Gemm, then an activation."""
    given = {name: site.attribute(name) for name in ("alpha", "beta", "transA", "transB")}
    result = site.op("Gemm", *site.inputs(), **given)
    names = {"alpha": "activation_alpha", "beta": "activation_beta", "gamma": "activation_gamma"}
    extra = {to: site.attribute(name) for to, name in names.items() if site.attribute(name) is not None}
    return _activated(result, site.attribute("activation", ""), extra)


@rewrite("FusedConv", domain=MICROSOFT)
def rewrite_fused_conv(site: Site) -> Value:
    """Conv, perhaps a sum with another tensor, then an activation."""
    names = ("auto_pad", "dilations", "group", "pads", "strides", "kernel_shape")
    inputs = [site.input(at) if site.has(at) else None for at in range(3)]
    result = site.op("Conv", *inputs, **{name: site.attribute(name) for name in names})
    if site.has(3):
        result = result + site.input(3)
    order = {"HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",), "Clip": ("min", "max")}
    activation = site.attribute("activation", "")
    extra = dict(zip(order.get(activation, ()), site.attribute("activation_params", []), strict=False))
    return _activated(result, activation, extra)


def _activated(x: Value, activation: str, parameters: dict[str, Any]) -> Value:
    site = x.site
    if not activation:
        return x
    if activation == "Clip":
        low, high = (site.number(parameters[name], x) for name in ("min", "max"))
        return site.op("Clip", x, low, high)
    if activation == "HardSigmoid":
        parameters = {"alpha": 0.2, "beta": 0.5, **parameters}
    return site.op(activation, x, **parameters)


@rewrite("SkipLayerNormalization", domain=MICROSOFT)
def rewrite_skip_layer_normalization(site: Site) -> list[Value | None]:
    """LayerNormalization of a sum, which is an output too."""
    total = _with_skip(site, 4)
    beta = site.input(3) if site.has(3) else None
    epsilon = site.attribute("epsilon", 1e-12)
    normal = site.op("LayerNormalization", total, site.input(2), beta, axis=-1, epsilon=epsilon)
    return [normal, None, None, total]


@rewrite("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def rewrite_skip_rms_normalization(site: Site) -> list[Value | None]:
    """The same over the root mean square."""
    total = _with_skip(site, 3)
    normal = root_mean_square(total, [total.rank - 1], site.attribute("epsilon", 1e-12)) * site.input(2)
    return [normal, None, None, total]


def _with_skip(site: Site, bias: int) -> Value:
    total = site.input(0) + site.input(1)
    return total + site.input(bias) if site.has(bias) else total


@rewrite("EmbedLayerNormalization", domain=MICROSOFT)
def rewrite_embed_layer_normalization(site: Site) -> list[Value | None]:
    """Embeddings of words, places and segments, added and normalised."""
    ids = site.input(0)
    total = site.input(2).gather(ids, 0)
    if site.has(8):
        total = total + site.input(3).gather(site.input(8), 0)
    else:
        total = total + site.input(3).slice(0, 0, ids.dim(1))
    if site.has(1) and site.has(4):
        total = total + site.input(4).gather(site.input(1), 0)
    normal = site.op(
        "LayerNormalization", total, site.input(5), site.input(6), axis=-1, epsilon=site.attribute("epsilon", 1e-12)
    )
    lengths = None
    if site.wants(1):
        if site.has(7):
            lengths = site.op("ReduceSum", site.input(7), site.ints(1), keepdims=0)
        else:
            lengths = site.op("ReduceSum", ids * site.constant(np.array(0, ids.dtype)), site.ints(1), keepdims=0)
    return [normal, lengths, total]


@rewrite("GroupNorm", "SkipGroupNorm", domain=MICROSOFT)
def rewrite_group_norm(site: Site) -> list[Value | None]:
    """GroupNormalization, with the channels last unless said otherwise, then perhaps a SiLU."""
    x, gamma, beta = (site.input(at) for at in range(3))
    total = x
    for at in (3, 4):
        if site.has(at):
            other = site.input(at)
            total = total + (other.unsqueeze(1, 2) if other.rank == 2 else other)
    last = bool(site.attribute("channels_last", 1))
    front = total.transpose(0, 3, 1, 2) if last else total
    grouped = front.reshape(front.dim(0), site.attribute("groups"), -1)
    centred = grouped - grouped.mean([2])
    normal = centred / ((centred * centred).mean([2]) + site.attribute("epsilon", 1e-5)).sqrt()
    result = normal.reshape(*front.dims()) * gamma.reshape(-1, 1, 1) + beta.reshape(-1, 1, 1)
    if site.attribute("activation", 0):
        result = result * result.sigmoid()
    return [result.transpose(0, 2, 3, 1) if last else result, total]


@rewrite("NhwcConv", "NhwcFusedConv", domain=MICROSOFT)
def rewrite_channels_last_conv(site: Site) -> Value:
    """Conv with the channels last, of x and of the weight."""
    names = ("auto_pad", "dilations", "group", "pads", "strides")
    x, weight = (site.input(at).transpose(0, 3, 1, 2) for at in (0, 1))
    bias = site.input(2) if site.has(2) else None
    result = site.op("Conv", x, weight, bias, **{name: site.attribute(name) for name in names})
    if site.has(3):
        result = result + site.input(3).transpose(0, 3, 1, 2)
    return _activated(result, site.attribute("activation", ""), {}).transpose(0, 2, 3, 1)
