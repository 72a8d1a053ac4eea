"""Pooling: over windows, and over all of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.dense import Window, pad_list
from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, function

_MAX = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
_AVERAGE = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


class _Pool:
    """The windows of one pooling node."""

    def __init__(self, op: Operator) -> None:
        self.kernel: list[int] = list(op.attribute("kernel_shape"))
        n = len(self.kernel)
        self.window = Window(op)
        self.strides = list(self.window.strides or [1] * n)
        self.dilations = list(self.window.dilations or [1] * n)
        self.ceil = bool(op.attribute("ceil_mode", 0)) and self.window.auto == "NOTSET"

    def pads(self, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """The pads, before and then after, and how far the last windows reach beyond them in ceil mode."""
        pads, beyond = self.window.pads(sizes, self.kernel), [0] * len(sizes)
        half = len(sizes)
        for at, size in enumerate(sizes if self.ceil else ()):
            reach, stride = (self.kernel[at] - 1) * self.dilations[at] + 1, self.strides[at]
            whole = size + pads[at] + pads[half + at]
            count = -(-(whole - reach) // stride) + 1
            if (count - 1) * stride >= size + pads[at]:
                count -= 1  # a window that would start behind the image is none
            beyond[at] = max((count - 1) * stride + reach - whole, 0)
        return pads, beyond

    def fits(self, pads: Sequence[int], beyond: Sequence[int]) -> bool:
        """Does torch take these pads: equal on both sides, and no more than half a window."""
        half = len(self.kernel)
        small = all(2 * pad <= kernel for pad, kernel in zip(pads[:half], self.kernel, strict=True))
        return list(pads[:half]) == list(pads[half:]) and small and not any(beyond)


def _more(pads: Sequence[int], beyond: Sequence[int]) -> list[int]:
    half = len(beyond)
    return [*pads[:half], *(pad + more for pad, more in zip(pads[half:], beyond, strict=True))]


@function("MaxPool")
def max_pool(op: Operator) -> Compute:
    """The largest value in each window, and where it was: its place in the whole tensor, flat."""
    pool, by_column = _Pool(op), op.attribute("storage_order", 0)

    def run(x: Tensor) -> Tensor | list[Tensor]:
        sizes = x.shape[2:]
        pads, beyond = pool.pads(sizes)
        half = len(sizes)
        if pool.fits(pads, beyond):
            wide, inside, before = x, pads[:half], [0] * half
        else:
            lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
            wide, inside, before = F.pad(x, pad_list(_more(pads, beyond)), value=lowest), [0] * half, pads[:half]
        compute: Any = _MAX[x.dim()]
        found = compute(wide, pool.kernel, pool.strides, inside, pool.dilations, return_indices=op.wants(1))
        if op.wants(1):
            return [found[0], _places(found[1], wide.shape[2:], before, x.shape, by_column)]
        result: Tensor = found
        return result

    return run


def _places(flat: Tensor, wide: Sequence[int], before: Sequence[int], shape: Sequence[int], by_column: bool) -> Tensor:
    """Places in a padded image as places in the whole tensor."""
    sizes, rest, coordinates = list(shape[2:]), flat, []
    for size in reversed(wide):
        coordinates.append(rest % size)
        rest = rest // size
    axes = [c - b for c, b in zip(reversed(coordinates), before, strict=True)]
    place, step = torch.zeros_like(flat), 1
    for at in range(len(sizes)) if by_column else reversed(range(len(sizes))):
        place = place + axes[at] * step
        step *= sizes[at]
    images = torch.arange(shape[0] * shape[1], device=flat.device).reshape(shape[0], shape[1], *[1] * len(sizes))
    return place + images * step


@function("AveragePool")
def average_pool(op: Operator) -> Compute:
    """The mean of each window, over what it holds of the image, or with count_include_pad of the pads too."""
    pool, counted = _Pool(op), bool(op.attribute("count_include_pad", 0))

    def run(x: Tensor) -> Tensor:
        pads, beyond = pool.pads(x.shape[2:])
        half = len(beyond)
        if pool.fits(pads, beyond) and all(d == 1 for d in pool.dilations):
            return _AVERAGE[x.dim()](x, pool.kernel, pool.strides, pads[:half], False, counted)
        ones = x.new_ones(1, 1, *x.shape[2:])
        if counted:
            ones, more = F.pad(ones, pad_list(pads), value=1.0), _more([0] * (2 * half), beyond)
        else:
            more = _more(pads, beyond)
        sums = _window_sums(pool, F.pad(x, pad_list(_more(pads, beyond))))
        return sums / _window_sums(pool, F.pad(ones, pad_list(more)))

    return run


def _window_sums(pool: _Pool, x: Tensor) -> Tensor:
    """The sum in each window."""
    if all(d == 1 for d in pool.dilations):
        return _AVERAGE[x.dim()](x, pool.kernel, pool.strides) * math.prod(pool.kernel)
    single = x.reshape(-1, 1, *x.shape[2:])
    ones = x.new_ones(1, 1, *pool.kernel)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(pool.kernel) - 1]
    sums = convolve(single, ones, None, pool.strides, 0, pool.dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@function("GlobalAveragePool")
def global_average_pool(op: Operator) -> Compute:
    """The mean of every image's channels."""
    return lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True) if x.dim() > 2 else x


@function("GlobalMaxPool")
def global_max_pool(op: Operator) -> Compute:
    """The largest value of every image's channels; the first one takes the gradient."""
    return lambda x: x.flatten(2).max(2).values.reshape(*x.shape[:2], *[1] * (x.dim() - 2)) if x.dim() > 2 else x
