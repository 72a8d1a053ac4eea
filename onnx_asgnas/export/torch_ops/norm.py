"""Normalisations."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.export.code import Expression, Lit, Step, Stored, call, infix, method
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site


def epsilon(site: Site) -> Lit:
    """The number that is added to a variance; ONNX stores it in single precision."""
    return Lit(float(str(np.float32(site.attribute("epsilon", 1e-5)))), "eps")


@writes("BatchNormalization", since_version=7)
def batch_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__BatchNormalization.html; ONNX's momentum is one minus that of PyTorch."""
    kind = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}.get(site.rank(0))
    if kind is None or not all(site.is_own(at) for at in range(1, 5)):
        return _functional_batch_norm(site)
    channels = Lit(int(site.shape(1)[0]), "channels")  # type: ignore[index, arg-type]
    settings: dict[str, Expression] = {}
    if epsilon(site).value != 1e-5:
        settings["eps"] = epsilon(site)
    momentum = float(str(np.float32(1) - np.float32(site.attribute("momentum", 0.9))))
    if round(momentum, 6) != 0.1:
        settings["momentum"] = Lit(round(momentum, 6), "momentum")
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: Stored(site.node.input[at]) for at, name in enumerate(names, 1)}
    tensors["num_batches_tracked"] = Stored(number=0)
    return site.layer(call(f"nn.BatchNorm{kind}", channels, **settings), tensors, site[0])


def _functional_batch_norm(site: Site) -> Step:
    values = (site[3], site[4], site[1], site[2])
    return site.step(call("F.batch_norm", site[0], *values, eps=epsilon(site)))


@writes("LayerNormalization")
def layer_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__LayerNormalization.html"""
    if len(site.node.output) > 1:  # those that nobody reads are gone
        raise site.refused("its mean or deviation is read")
    axis = site.axis(0, default=-1)
    shape, given = (site.shape(0) or ())[axis:], site.shape(1)
    if None in shape or given != shape or (site.has(2) and site.shape(2) != shape):
        raise site.refused("its scale is not of the shape that it normalises over")
    lengths = tuple(int(n) for n in shape if n is not None)
    size = Lit(lengths[0] if len(lengths) == 1 else lengths, "features")
    eps: dict[str, Expression] = {} if epsilon(site).value == 1e-5 else {"eps": epsilon(site)}
    if site.is_own(1) and (not site.has(2) or site.is_own(2)):
        tensors = {"weight": Stored(site.node.input[1])}
        if site.has(2):
            tensors["bias"] = Stored(site.node.input[2])
        else:
            eps["bias"] = Lit(False, "bias")
        return site.layer(call("nn.LayerNorm", size, **eps), tensors, site[0])
    operands = [site[1], *([site[2]] if site.has(2) else [])]
    return site.step(call("F.layer_norm", site[0], Lit(lengths, "features"), *operands, eps=epsilon(site)))


@writes("RMSNormalization", domain="")
def rms_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__RMSNormalization.html"""
    shape = (site.shape(0) or ())[site.axis(0, default=-1) :]
    if None in shape or site.shape(1) != shape:
        raise site.refused("its scale is not of the shape that it normalises over")
    size = Lit(tuple(int(n) for n in shape if n is not None), "features")
    if site.is_own(1):
        return site.layer(call("nn.RMSNorm", size, eps=epsilon(site)), {"weight": Stored(site.node.input[1])}, site[0])
    return site.step(call("F.rms_norm", site[0], size, site[1], eps=epsilon(site)))


@writes("InstanceNormalization")
def instance_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html"""
    return site.step(call("F.instance_norm", site[0], weight=site[1], bias=site[2], eps=epsilon(site)))


@writes("GroupNormalization", since_version=21)
def group_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__GroupNormalization.html"""
    groups = Lit(int(site.attribute("num_groups")), "groups")
    if site.is_own(1) and site.is_own(2):
        channels = Lit(int(site.shape(1)[0]), "channels")  # type: ignore[index, arg-type]
        tensors = {"weight": Stored(site.node.input[1]), "bias": Stored(site.node.input[2])}
        return site.layer(call("nn.GroupNorm", groups, channels, eps=epsilon(site)), tensors, site[0])
    return site.step(call("F.group_norm", site[0], groups, site[1], site[2], epsilon(site)))


@writes("LpNormalization")
def lp_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__LpNormalization.html"""
    order, axis = Lit(int(site.attribute("p", 2)), "p"), Lit(int(site.attribute("axis", -1)), "axis")
    return site.step(call("F.normalize", site[0], order, axis, eps=Lit(1e-30, "eps")))


@writes("LRN")
def local_response_norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__LRN.html; an even window lies one place further in PyTorch."""
    size = int(site.attribute("size"))
    if size % 2 == 0:
        raise site.refused("its window is even")
    numbers = [
        float(str(np.float32(site.attribute(n, d)))) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    ]
    names = ("alpha", "beta", "k")
    settings = {name: Lit(number, name) for name, number in zip(names, numbers, strict=True)}
    return site.step(call("F.local_response_norm", site[0], Lit(size, "size"), **settings))


@writes("MeanVarianceNormalization")
def mean_variance(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html"""
    axes = Lit(tuple(site.attribute("axes", (0, 2, 3))), "axes")
    keep = Lit(True, "keepdim")
    centred = infix("-", site[0], method(site[0], "mean", axes, keepdim=keep))
    deviation = method(site[0], "std", axes, correction=Lit(0, "correction"), keepdim=keep)
    return site.step(infix("/", centred, infix("+", deviation, Lit(1e-9, "eps"))))
