"""Images at other sizes, and at places between pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, attribute_of, function

_MODES = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")


def _not_ours(node: onnx.NodeProto) -> bool:
    """Cropping and smoothing have no function here."""
    return (
        attribute_of(node, "coordinate_transformation_mode", "half_pixel") not in _COORDINATES
        or bool(attribute_of(node, "antialias", 0))
        or attribute_of(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    )


@function("Resize", unless=_not_ours, host=(1, 2, 3))
def resize(op: Operator) -> Compute:
    """Other lengths of axes, by the nearest value or by interpolation, one axis after the other.

    Where torch has the same it computes it; else every axis is multiplied by a matrix, or gathered for the nearest.
    """
    mode, axes_given = op.attribute("mode", "nearest"), op.attribute("axes")
    rule = _Rule(op)
    numbers: list[float] | None = None
    if op.has(2) and (value := op.constant(2)) is not None and value.size:
        numbers = [float(entry) for entry in value.reshape(-1)]
    sizes_of = op.integers(3)

    def run(
        x: Tensor, _: Tensor | None = None, scales_t: Tensor | None = None, sizes_t: Tensor | None = None
    ) -> Tensor:
        axes = [axis % x.dim() for axis in axes_given] if axes_given else list(range(x.dim()))
        old = [x.shape[axis] for axis in axes]
        if op.has(3):
            new = sizes_of(sizes_t)
            scales = [b / a for a, b in zip(old, new, strict=True)]
        else:
            scales = numbers if numbers is not None else [float(s) for s in scales_t.tolist()]  # type: ignore[union-attr]
            new = [math.floor(a * s) for a, s in zip(old, scales, strict=True)]
        done = _by_torch(x, rule, axes, new, scales)
        if done is not None:
            return done
        for axis, size, scale in zip(axes, new, scales, strict=True):
            if scale != 1 or size != x.shape[axis]:
                x = _along(x, axis, rule, mode, size, scale)
        return x

    return run


class _Rule:
    """How places of the result are mapped to places of the input, and what is made of the values there."""

    def __init__(self, op: Operator) -> None:
        self.mode: str = op.attribute("mode", "nearest")
        self.coordinates: str = op.attribute("coordinate_transformation_mode", "half_pixel")
        self.nearest: str = op.attribute("nearest_mode", "round_prefer_floor")
        self.cubic: float = op.attribute("cubic_coeff_a", -0.75)
        self.within: bool = bool(op.attribute("exclude_outside", 0))


def _by_torch(
    x: Tensor, rule: _Rule, axes: Sequence[int], new: Sequence[int], scales: Sequence[float]
) -> Tensor | None:
    """The result, where torch interpolates in the same way: all lengths but those of the first two axes change."""
    sizes = dict(zip(axes, new, strict=True))
    inner = [sizes.get(axis, x.shape[axis]) for axis in range(2, x.dim())]
    if any(sizes.get(axis, x.shape[axis]) != x.shape[axis] for axis in (0, 1)) or not 3 <= x.dim() <= 5:
        return None
    exact = [b / a for a, b in zip((x.shape[axis] for axis in axes), new, strict=True)]
    if list(scales) != exact:
        return None
    if rule.mode == "nearest":
        repeats = all(size % x.shape[axis] == 0 for axis, size in sizes.items())
        floor = rule.coordinates == "asymmetric" and rule.nearest == "floor"
        centre = rule.coordinates in ("half_pixel", "pytorch_half_pixel") and rule.nearest.startswith("round")
        return F.interpolate(x, inner, mode="nearest") if repeats and (floor or centre) else None
    mode = _MODES.get(rule.mode, {}).get(x.dim())
    usual = rule.mode == "linear" or (rule.cubic == -0.75 and not rule.within)
    if mode is None or not usual or rule.coordinates not in ("half_pixel", "align_corners"):
        return None
    return F.interpolate(x, inner, mode=mode, align_corners=rule.coordinates == "align_corners")


def _along(x: Tensor, axis: int, rule: _Rule, mode: str, size: int, scale: float) -> Tensor:
    """One axis at another length."""
    matrix = _matrix(mode, rule.coordinates, rule.nearest, rule.cubic, rule.within, x.shape[axis], size, scale)
    if mode == "nearest":
        return x.index_select(axis, torch.from_numpy(matrix.argmax(1)).to(x.device))
    weights = torch.from_numpy(matrix).to(x.device, x.dtype)
    return (x.movedim(axis, -1) @ weights.t()).movedim(-1, axis)


@lru_cache(maxsize=256)
def _matrix(
    mode: str, coordinates: str, nearest: str, cubic: float, within: bool, old: int, new: int, scale: float
) -> NDArray[np.float64]:
    """What every value of the result takes of every value of the input: [new, old]."""
    places = _origins(coordinates, old, new, scale)
    result = np.zeros((new, old))
    rows = np.arange(new)
    if mode == "nearest":
        result[rows, _nearest(nearest, places).clip(0, old - 1).astype(int)] = 1
        return result
    floor = np.floor(places)
    reach = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    for step in reach:
        at = floor + step
        distance = np.abs(places - at)
        weight = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, cubic)
        if within:
            weight = np.where((at < 0) | (at >= old), 0.0, weight)
        np.add.at(result, (rows, at.clip(0, old - 1).astype(int)), weight)
    return result / result.sum(1, keepdims=True) if within else result


def _origins(coordinates: str, old: int, new: int, scale: float) -> NDArray[np.float64]:
    """Where in the input every place of the result lies."""
    places = np.arange(new, dtype=np.float64)
    if coordinates == "align_corners":
        return places * (old - 1) / (scale * old - 1) if scale * old > 1 else places * 0
    if coordinates == "asymmetric":
        return places / scale
    if coordinates == "pytorch_half_pixel" and new <= 1:
        return places * 0
    origins = (places + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        adjustment = new / (scale * old)
        origins += old / 2 * (1 - adjustment)
    return origins


def _nearest(rounding: str, places: NDArray[np.float64]) -> NDArray[np.float64]:
    if rounding == "floor":
        return np.floor(places)
    if rounding == "ceil":
        return np.ceil(places)
    return np.ceil(places - 0.5) if rounding == "round_prefer_floor" else np.floor(places + 0.5)


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """The cubic convolution kernel of Keys (1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


_GRID_MODES = {
    "linear": "bilinear",
    "bilinear": "bilinear",
    "nearest": "nearest",
    "cubic": "bicubic",
    "bicubic": "bicubic",
}


@function("GridSample")
def grid_sample(op: Operator) -> Compute:
    """Values of an image at places between pixels, given from -1 to 1."""
    mode = op.attribute("mode", "linear")
    mode = _GRID_MODES.get(mode, mode)
    padding, corners = op.attribute("padding_mode", "zeros"), bool(op.attribute("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)


@function("AffineGrid", host=(1,))
def affine_grid(op: Operator) -> Compute:
    """The places of the pixels of an image that is moved by a matrix."""
    corners, size_of = bool(op.attribute("align_corners", 0)), op.integers(1)
    return lambda theta, size: F.affine_grid(theta, size_of(size), align_corners=corners)
