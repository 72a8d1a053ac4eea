"""Convolutions and windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Dim, Site, Value


def explicit_pads(site: Site, kernel: Sequence[int]) -> list[int]:
    """The pads of a window operator, worked out where auto_pad gives them by a rule."""
    spatial = site.input().shape[2:]
    mode = site.attribute("auto_pad", "NOTSET")
    none = [0] * (2 * len(spatial))
    if mode in ("NOTSET", "VALID"):
        return list(site.attribute("pads", none)) if mode == "NOTSET" else none
    strides, dilations = _steps(site, len(spatial))
    totals = []
    for axis, (size, window, stride, dilation) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
        if size is None and stride > 1:
            raise site.refusal(f"auto_pad {mode} needs the size of axis {axis + 2}, which is open")
        reach = (window - 1) * dilation + 1
        totals.append(max(reach - stride if size is None or size % stride == 0 else reach - size % stride, 0))
    return _halves(totals, more_at_the_end=mode == "SAME_UPPER")


def _halves(totals: Sequence[int], *, more_at_the_end: bool) -> list[int]:
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if more_at_the_end else more + less


def _steps(site: Site, dimensions: int) -> tuple[list[int], list[int]]:
    """Strides and dilations."""
    ones = [1] * dimensions
    return list(site.attribute("strides", ones)), list(site.attribute("dilations", ones))


def _kernel(weight: Value) -> list[int]:
    return [weight.fixed_size(axis, "kernel") for axis in range(2, weight.rank)]


@rewrite("Conv")
def rewrite_conv(site: Site) -> Value:
    """Conv with explicit pads: the gradient ignores auto_pad without saying so."""
    kernel = _kernel(site.input(1))
    strides, dilations = _steps(site, len(kernel))
    pads, group = explicit_pads(site, kernel), site.attribute("group", 1)
    return site.op("Conv", *site.inputs(), pads=pads, strides=strides, dilations=dilations, group=group)


@rewrite("MaxPool")
def rewrite_max_pool(site: Site) -> list[Value]:
    """MaxPool with explicit pads, of an image whose sizes the runtime knows: its gradient needs both.

    Where a size is open the largest values are gathered from their places. Places that the network itself reads are
    found apart, since the gradient takes none but those that are counted row by row.
    """
    kernel = site.attribute("kernel_shape")
    strides, dilations = _steps(site, len(kernel))
    x, order = site.input(), site.attribute("storage_order", 0)
    given = {"kernel_shape": kernel, "pads": explicit_pads(site, kernel), "strides": strides, "dilations": dilations}
    given["ceil_mode"] = site.attribute("ceil_mode", 0)
    if None in x.shape[1:]:
        places = site.ops("MaxPool", 2, x.detach(), **given)[1]
        largest = site.op("GatherElements", x.reshape(-1), places.reshape(-1), axis=0).reshape(*places.dims())
    else:
        largest = site.kept("MaxPool", of_known_size(x), **given)
    if not site.wants(1):
        return [largest]
    return [largest, site.ops("MaxPool", 2, x.detach(), storage_order=order, **given)[1]]


def of_known_size(x: Value) -> Value:
    """The same image [N, C, …], whose sizes but for the batch the runtime now knows, whatever it made of the graph.

    The gradient of its MaxPool reads them when the session is made, and writes out of bounds where it finds none.
    """
    return x.reshape(-1, *(x.fixed_size(axis, "image") for axis in range(1, x.rank)))


@rewrite("LpPool")
def rewrite_lp_pool(site: Site) -> Value:
    """The p-norm in windows: powers summed by an AveragePool that counts its padding."""
    x, p, kernel = site.input(), site.attribute("p", 2), site.attribute("kernel_shape")
    strides, dilations = _steps(site, len(kernel))
    powers = x * x if p == 2 else site.op("Abs", x)
    if p > 2:
        powers = site.op("Pow", powers, site.number(p, x))
    means = site.op(
        "AveragePool",
        powers,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations if max(dilations) > 1 else None,
        pads=explicit_pads(site, kernel),
        ceil_mode=site.attribute("ceil_mode", 0),
        count_include_pad=1,
    )
    sums = means * float(np.prod(kernel))
    if p == 1:
        return sums
    return sums.sqrt() if p == 2 else site.op("Pow", sums, site.number(1 / p, x))


@rewrite("MaxUnpool")
def rewrite_max_unpool(site: Site) -> Value:
    """Values back at the places that a MaxPool took them from, in zeros."""
    x, index = site.input(0), site.input(1)
    if site.has(2):
        shape: list[Dim] = [int(size) for size in site.fixed(2, "output shape")]
    else:
        kernel = site.attribute("kernel_shape")
        strides, pads = _steps(site, len(kernel))[0], site.attribute("pads", [0] * (2 * len(kernel)))
        sizes = [x.fixed_size(axis, "output shape") for axis in range(2, x.rank)]
        spatial = [
            (size - 1) * stride - pads[at] - pads[at + len(kernel)] + window
            for at, (size, stride, window) in enumerate(zip(sizes, strides, kernel, strict=True))
        ]
        shape = [*x.dims(0, 2), *spatial]
    flat = site.filled(0.0, shape, x).reshape(-1)
    return site.op("ScatterElements", flat, index.reshape(-1), x.reshape(-1), axis=0).reshape(*shape)


@rewrite("ConvTranspose")
def rewrite_conv_transpose(site: Site) -> Value:
    """ConvTranspose: zeros between the pixels, then a Conv with the kernel flipped."""
    x, weight = site.input(0), site.input(1)
    kernel, group = _kernel(weight), site.attribute("group", 1)
    strides, dilations = _steps(site, len(kernel))
    extra = list(site.attribute("output_padding", [0] * len(kernel)))
    pads = _transposed_pads(site, kernel, extra)
    conv_pads = []
    for at, stride in enumerate(strides):
        reach = (kernel[at] - 1) * dilations[at]
        x = _with_zeros_between(x, at + 2, stride)
        conv_pads.append((reach - pads[at], reach - pads[at + len(kernel)] + extra[at] - (stride - 1)))
    for at, (before, after) in enumerate(conv_pads):
        if before < 0 or after < 0:
            x = x.slice(at + 2, max(-before, 0), min(after, 0) or int(np.iinfo(np.int64).max))
    flat = [max(pair[side], 0) for side in (0, 1) for pair in conv_pads]
    bias = site.input(2) if site.has(2) else None
    return site.op("Conv", x, _flipped(weight, kernel, group), bias, pads=flat, dilations=dilations, group=group)


def _transposed_pads(site: Site, kernel: Sequence[int], extra: Sequence[int]) -> list[int]:
    """What a ConvTranspose cuts off at either side."""
    count = len(kernel)
    strides, dilations = _steps(site, count)
    mode, wanted = site.attribute("auto_pad", "NOTSET"), site.attribute("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        return list(site.attribute("pads", [0] * (2 * count))) if mode == "NOTSET" else [0] * (2 * count)
    totals = []
    for at in range(count):
        grown = (kernel[at] - 1) * dilations[at] + 1 + extra[at]
        if wanted is None:
            totals.append(max(grown - strides[at], 0))
        else:
            size = site.input().fixed_size(at + 2, "output shape")
            totals.append(strides[at] * (size - 1) + grown - wanted[-count:][at])
    return _halves(totals, more_at_the_end=mode == "SAME_UPPER")


def _with_zeros_between(x: Value, axis: int, stride: int) -> Value:
    """Each pixel followed by stride - 1 zeros along an axis."""
    if stride == 1:
        return x
    shape, length = x.dims(), x.dim(axis)
    wide = x.unsqueeze(axis + 1)
    pads = np.zeros((2, wide.rank), np.int64)
    pads[1, axis + 1] = stride - 1
    longer = length * stride if isinstance(length, int) else -1
    return x.site.op("Pad", wide, pads.ravel()).reshape(*shape[:axis], longer, *shape[axis + 1 :])


def _flipped(weight: Value, kernel: Sequence[int], group: int) -> Value:
    """[C, M / group, …] as the kernel [M, C / group, …] of the convolution the other way, each axis reversed."""
    inputs, outputs = weight.fixed_size(0, "weight"), weight.fixed_size(1, "weight")
    count = int(np.prod(kernel))
    split = weight.reshape(group, inputs // group, outputs, count).transpose(0, 2, 1, 3)
    if count > 1:
        split = split.gather(np.arange(count)[::-1].copy(), 3)
    return split.reshape(group * outputs, inputs // group, *kernel)


@rewrite("Col2Im")
def rewrite_columns_to_image(site: Site) -> Value:
    """Patches added up where they lie in the image."""
    x = site.input()
    image, block = (site.fixed(at, what).tolist() for at, what in ((1, "image shape"), (2, "block shape")))
    count = len(image)
    strides, dilations = _steps(site, count)
    pads = list(site.attribute("pads", [0] * (2 * count)))
    padded = [size + pads[at] + pads[at + count] for at, size in enumerate(image)]
    index: NDArray[np.int64] = np.zeros([1] * (2 * count), np.int64)  # [block…, place…]: where in the flat image
    for at in range(count):
        starts = np.arange(0, padded[at] - dilations[at] * (block[at] - 1), strides[at])
        lines = np.arange(block[at])[:, None] * dilations[at] + starts[None]
        shape = [1] * (2 * count)
        shape[at], shape[count + at] = lines.shape
        index = index + lines.reshape(shape) * int(np.prod(padded[at + 1 :]))
    channels = x.fixed_size(1, "channels") // int(np.prod(block))
    batch = x.dim(0)
    values = x.reshape(batch, channels, index.size)
    zeros = site.filled(0.0, [batch, channels, int(np.prod(padded))], x)
    where = site.constant(index.reshape(1, 1, -1)).expand(batch, channels, index.size)
    result = site.op("ScatterElements", zeros, where, values, axis=2, reduction="add")
    result = result.reshape(batch, channels, *padded)
    for at in range(count):
        if pads[at] or pads[at + count]:
            result = result.slice(at + 2, pads[at], pads[at] + image[at])
    return result
