"""Operators over space: convolutions, pooling, resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.export.code import Expression, Lit, Step, Stored, call, method, tuple_of
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site, tuple_or_number


def _window(site: Site, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads (first those before, then those after) of a window."""
    count = len(kernel)
    strides = list(site.attribute("strides") or [1] * count)
    dilations = list(site.attribute("dilations") or [1] * count)
    how = site.attribute("auto_pad", "NOTSET")
    if how == "NOTSET":
        return strides, dilations, list(site.attribute("pads") or [0] * 2 * count)
    if how == "VALID":
        return strides, dilations, [0] * 2 * count
    totals = _same_pads(site, kernel, strides, dilations)
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return strides, dilations, small + large if how == "SAME_UPPER" else large + small


def _same_pads(site: Site, kernel: Sequence[int], strides: list[int], dilations: list[int]) -> list[int]:
    """How much is padded along each axis so that the output is the input over the stride, rounded up."""
    lengths = (site.shape(0) or (None,) * (len(kernel) + 2))[2:]
    totals = []
    for length, width, stride, dilation in zip(lengths, kernel, strides, dilations, strict=True):
        extent = (width - 1) * dilation + 1
        if length is None and stride > 1:
            raise site.refused("its padding depends on an open length")
        last = 0 if length is None else (-(-length // stride) - 1) * stride - length
        totals.append(max(extent - 1 if length is None else last + extent, 0))
    return totals


def _is_even(pads: list[int]) -> bool:
    return pads[: len(pads) // 2] == pads[len(pads) // 2 :]


def _padded(site: Site, pads: list[int], value: float = 0.0) -> Expression:
    """The input with pads around it, which differ before and after."""
    half = len(pads) // 2
    order = tuple(side for at in reversed(range(half)) for side in (pads[at], pads[at + half]))
    if value == 0.0:
        return call("F.pad", site[0], Lit(order, "padding"))
    return call("F.pad", site[0], Lit(order, "padding"), value=call("float", Lit("-inf", "value")))


@writes("Conv", "ConvTranspose")
def conv(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Conv.html"""
    weight = site.shape(1)
    if weight is None or None in weight or not 3 <= len(weight) <= 5:
        raise site.refused("its kernel has an open shape")
    turned = site.node.op_type == "ConvTranspose"
    kernel = [int(n) for n in weight[2:] if n is not None]
    if turned and (site.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or site.attribute("output_shape")):
        raise site.refused("its padding follows from the shape of its output")
    strides, dilations, pads = _window(site, kernel)
    data, half = site[0], pads[: len(kernel)]
    if not _is_even(pads):
        if turned:
            raise site.refused("it pads differently before and after")
        data, half = _padded(site, pads), [0] * len(kernel)
    settings: dict[str, Expression] = {
        "stride": tuple_or_number(strides, "stride", 1),
        "padding": tuple_or_number(half, "padding", 0),
    }
    if turned and any(site.attribute("output_padding", [])):
        settings["output_padding"] = tuple_or_number(site.attribute("output_padding"), "output_padding")
    settings["groups"] = Lit(int(site.attribute("group", 1)), "groups", 1)
    settings["dilation"] = tuple_or_number(dilations, "dilation", 1)
    if site.is_own(1) and (not site.has(2) or site.is_own(2)):
        return _conv_module(site, kernel, data, settings, turned)
    name = f"F.conv{'_transpose' if turned else ''}{len(kernel)}d"
    bias = {"bias": site[2]} if site.has(2) else {}
    return site.step(call(name, data, site[1], **bias, **settings))


def _conv_module(
    site: Site, kernel: list[int], data: Expression, settings: dict[str, Expression], turned: bool
) -> Step:
    """A convolution whose weights are its own is a submodule."""
    groups = int(site.attribute("group", 1))
    first, second = (int(n) for n in (site.shape(1) or ())[:2] if n is not None)
    channels = (first, second * groups) if turned else (second * groups, first)
    tensors = {"weight": Stored(site.node.input[1])}
    if site.has(2):
        tensors["bias"] = Stored(site.node.input[2])
    else:
        settings["bias"] = Lit(False, "bias")
    name = f"nn.Conv{'Transpose' if turned else ''}{len(kernel)}d"
    sizes = (Lit(channels[0], "in"), Lit(channels[1], "out"), tuple_or_number(kernel, "kernel"))
    return site.layer(call(name, *sizes, **settings), tensors, data)


@writes("MaxPool", "AveragePool")
def pool(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__MaxPool.html"""
    if len([name for name in site.node.output if name in site.graph.consumers or site.graph.is_output(name)]) > 1:
        raise site.refused("its indices are read")
    largest = site.node.op_type == "MaxPool"
    kernel = list(site.attribute("kernel_shape"))
    strides, dilations, pads = _window(site, kernel)
    half = pads[: len(kernel)]
    ceil, counted = bool(site.attribute("ceil_mode", 0)), bool(site.attribute("count_include_pad", 0))
    if not largest and (set(dilations) != {1} or (ceil and any(pads))):
        raise site.refused("its windows reach over the border in a way that PyTorch averages otherwise")
    wide = any(2 * pad > width for pad, width in zip(half, kernel, strict=True))
    if _is_even(pads) and not wide:
        data = site[0]
    elif largest or counted:
        data, half = _padded(site, pads, -np.inf if largest else 0.0), [0] * len(kernel)
    else:
        raise site.refused("it pads differently before and after, and does not count the pads")
    settings: dict[str, Expression] = {}
    if strides != kernel:
        settings["stride"] = tuple_or_number(strides, "stride")
    if set(half) != {0}:
        settings["padding"] = tuple_or_number(half, "padding")
    if set(dilations) != {1}:
        settings["dilation"] = tuple_or_number(dilations, "dilation")
    if ceil:
        settings["ceil_mode"] = Lit(True, "ceil_mode")
    if not largest and not counted and any(half):
        settings["count_include_pad"] = Lit(False, "count_include_pad")
    size, count = tuple_or_number(kernel, "kernel"), len(kernel)
    function, module = ("F.max_pool", "nn.MaxPool") if largest else ("F.avg_pool", "nn.AvgPool")
    made = call(f"{module}{count}d", size, **settings)
    return site.step(call(f"{function}{count}d", data, size, **settings), module=made if data == site[0] else None)


@writes("GlobalAveragePool", "GlobalMaxPool")
def global_pool(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html"""
    rank = site.rank(0)
    largest = site.node.op_type == "GlobalMaxPool"
    axes, keep = Lit(tuple(range(2, rank)), "axes"), Lit(True, "keepdim")
    code = method(site[0], "amax" if largest else "mean", axes, keepdim=keep)
    if not 3 <= rank <= 5:
        return site.step(code)
    kind = "Max" if largest else "Avg"
    return site.step(code, module=call(f"nn.Adaptive{kind}Pool{rank - 2}d", Lit(1, "size")))


@writes("Resize", "Upsample", since_version=9)
def resize(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Resize.html in the forms that F.interpolate has."""
    how = site.attribute("mode", "nearest")
    place = site.attribute("coordinate_transformation_mode", "half_pixel")
    if site.node.op_type == "Upsample":
        place = "asymmetric"
    rank = site.rank(0)
    sizes = site.numbers(3) if site.has(3) else None
    scales = None if sizes else site.array(2 if site.node.op_type == "Resize" and site.version > 10 else 1)
    to: dict[str, Expression] = {}
    if sizes:
        shape = site.shape(0) or ()
        if sizes[:2] != [n or 1 for n in shape[:2]] and sizes[1] != shape[1]:
            raise site.refused("it resizes the channels")
        to["size"] = tuple_or_number(sizes[2:], "size")
        factors = [b / a if a else 0.0 for a, b in zip(shape[2:], sizes[2:], strict=True)]
    elif scales is not None and scales.size == rank and (scales[:2] == 1).all():
        factors = [float(scale) for scale in scales[2:]]
        to["scale_factor"] = Lit(factors[0] if len(set(factors)) == 1 else tuple(factors), "scale")
    elif site.has(3) and site.is_host(3) and how != "cubic":
        to["size"] = tuple_of(site.items(3)[2:])
        factors = [0.0] * (rank - 2)
    else:
        raise site.refused("its sizes are computed from values, or it resizes the channels")
    mode = _interpolation(site, how, place, rank, factors)
    return site.step(call("F.interpolate", site[0], **to, **mode))


def _interpolation(site: Site, how: str, place: str, rank: int, factors: list[float]) -> dict[str, Expression]:
    """The mode of F.interpolate that does the same; refused where none does."""
    whole = all(factor >= 1 and factor == round(factor) for factor in factors)
    if how == "nearest":
        rounding = site.attribute("nearest_mode", "round_prefer_floor")
        floored = place == "asymmetric" and (rounding == "floor" or site.node.op_type == "Upsample")
        if floored or (whole and place in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")):
            return {"mode": Lit("nearest", "mode")}
        raise site.refused(f"PyTorch has no nearest neighbour with {place} and {rounding}")
    names = {("linear", 3): "linear", ("linear", 4): "bilinear", ("linear", 5): "trilinear", ("cubic", 4): "bicubic"}
    mode = names.get((how, rank))
    corners = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}.get(place)
    if mode is None or corners is None or site.attribute("antialias", 0):
        raise site.refused(f"PyTorch has no {how} interpolation with {place}")
    if how == "cubic" and site.attribute("cubic_coeff_a", -0.75) != -0.75:
        raise site.refused("its cubic coefficient is not that of PyTorch")
    return {"mode": Lit(mode, "mode"), "align_corners": Lit(corners, "align_corners")}
