"""Operators that read an image between its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Dim, Site, Value

_CUBIC = -0.75
"""The coefficient of the cubic kernel that GridSample is defined with."""


@rewrite("GridSample")
def rewrite_grid_sample(site: Site) -> Value:
    """Pixels around each point gathered, and weighted by how near they are."""
    x, grid = site.input(0), site.input(1)
    count = x.rank - 2
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(m := site.attribute("mode", "linear"), m)
    aligned, padding = bool(site.attribute("align_corners", 0)), site.attribute("padding_mode", "zeros")
    sizes = x.dims(2)
    points = grid.reshape(grid.dim(0), -1, count)
    places = []
    for at in range(count):  # the last entry of a point belongs to the first axis
        coordinate = points.slice(2, count - 1 - at, count - at).squeeze(2)
        places.append(_denormalised(coordinate, sizes[at], aligned))
    if mode != "cubic":
        places = [_bounded(place, sizes[at], padding, aligned) for at, place in enumerate(places)]
    corners = [_corners(place, mode) for place in places]
    flat = x.reshape(*x.dims(0, 2), -1)
    total = None
    for chosen in product(*corners):
        term = _pixels(flat, [place for place, _ in chosen], sizes, padding, aligned)
        for _, weight in chosen:
            if weight is not None:
                term = term * weight.unsqueeze(1)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(*x.dims(0, 2), *grid.dims(1, grid.rank - 1))


@rewrite("AffineGrid")
def rewrite_affine_grid(site: Site) -> Value:
    """The points of a regular grid, moved by theta: a product."""
    theta = site.input(0)
    sizes = [int(size) for size in site.fixed(1, "size")[2:]]
    lines = []
    for size in sizes:
        steps = (np.arange(size) * 2 + 1) / size - 1
        lines.append(np.linspace(-1, 1, size) if site.attribute("align_corners", 0) else steps)
    axes = np.meshgrid(*lines, indexing="ij")
    points = np.stack([*(axis.ravel() for axis in reversed(axes)), np.ones(int(np.prod(sizes)))], 1)
    grid = site.constant(points.astype(theta.dtype)) @ theta.transpose(0, 2, 1)
    return grid.reshape(theta.dim(0), *sizes, len(sizes))


def _as_float(size: Dim, like: Value) -> Value | float:
    return size.cast(like.dtype) if isinstance(size, Value) else float(size)


def _denormalised(coordinate: Value, size: Dim, aligned: bool) -> Value:
    """From [-1, 1] to pixels."""
    length = _as_float(size, coordinate)
    if aligned:
        return (coordinate + 1.0) * ((length - 1.0) * 0.5)
    return ((coordinate + 1.0) * length - 1.0) * 0.5


def _bounded(place: Value, size: Dim, padding: str, aligned: bool) -> Value:
    """A place brought into the image as the padding mode says; for zeros it stays where it is."""
    length = _as_float(size, place)
    if padding == "zeros":
        return place
    if padding == "reflection":
        low, high = (0.0, length - 1.0) if aligned else (-0.5, length - 0.5)
        place = _reflected(place, low, high)
    site = place.site
    above = site.op("Max", place, 0.0)
    return site.op("Min", above, length - 1.0)


def _reflected(place: Value, low: float, high: Value | float) -> Value:
    """Mirrored at both ends until it is inside."""
    site, span = place.site, high - low
    away = site.op("Abs", place - low)
    times = site.op("Floor", away / span).detach()
    rest = away - times * span
    odd = (times - site.op("Floor", times * 0.5) * 2.0) > 0.5
    return site.where(odd, high - rest, rest + low)


def _corners(place: Value, mode: str) -> list[tuple[Value, Value | None]]:
    """The pixels along one axis that a point reads, and with which weights."""
    site = place.site
    if mode == "nearest":
        return [(site.op("Round", place).detach(), None)]
    before = site.op("Floor", place).detach()
    part = place - before
    if mode == "linear":
        return [(before, 1.0 - part), (before + 1.0, part)]
    weights = [_far(part + 1.0), _near(part), _near(1.0 - part), _far(2.0 - part)]
    return [(before + float(at - 1), weight) for at, weight in enumerate(weights)]


def _near(x: Value) -> Value:
    return (x * (_CUBIC + 2) - (_CUBIC + 3)) * x * x + 1.0


def _far(x: Value) -> Value:
    return ((x * _CUBIC - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC


def _pixels(flat: Value, places: Sequence[Value], sizes: Sequence[Dim], padding: str, aligned: bool) -> Value:
    """The pixels at whole-numbered places, of shape [N, C, points]; outside of the image as the padding mode says."""
    site, index, inside = flat.site, None, None
    for place, size in zip(places, sizes, strict=True):
        length = _as_float(size, place)
        if padding == "zeros":
            here = site.op("And", place >= 0.0, place <= length - 1.0)
            inside = here if inside is None else site.op("And", inside, here)
        bound = _bounded(place, size, "border" if padding == "zeros" else padding, aligned).detach()
        whole = site.op("Round", bound).cast(np.int64)
        index = whole if index is None else index * (size if isinstance(size, Value) else site.ints(size)) + whole
    assert index is not None
    wide = index.unsqueeze(1).expand(*flat.dims(0, 2), index.dim(1))
    values = site.op("GatherElements", flat, wide, axis=2)
    return values if inside is None else site.where(inside.unsqueeze(1), values, 0.0)


@rewrite("RoiAlign")
def rewrite_region_align(site: Site) -> Value:
    """Means of points in each bin of each region: one matrix along each axis, made in the graph from the regions.

    No gradient goes to the regions, as in torchvision.
    """
    x, regions, images = site.inputs()
    ratio, scale = site.attribute("sampling_ratio", 0), site.attribute("spatial_scale", 1.0)
    if site.attribute("mode", "avg") != "avg" or ratio <= 0:
        raise site.refusal("only means over a fixed number of points are handled")
    half = site.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    matrices = []
    for name, axis, first in (("output_height", 2, 1), ("output_width", 3, 0)):
        edges = [regions.detach().slice(1, at, at + 1) * scale - (0.5 if half else 0.0) for at in (first, first + 2)]
        size = edges[1] - edges[0] if half else site.op("Max", edges[1] - edges[0], 1.0)
        bins = site.attribute(name, 1)
        steps = ((np.arange(bins * ratio) + 0.5) / (bins * ratio)).astype(x.dtype)
        points = edges[0] + size * site.constant(steps)
        length = x.dim(axis) if x.has_rank else site.op("Shape", x, start=axis, end=axis + 1)
        weights = _tents(points, length).reshape(regions.dim(0), bins, ratio, length)
        matrices.append(weights.mean([2], keep=False).unsqueeze(1))
    rows, columns = matrices
    return rows @ x.gather(images, 0) @ columns.transpose(0, 1, 3, 2)


def _tents(points: Value, size: Dim) -> Value:
    """How much each pixel counts for a point, [R, points, size]; far outside of the image nothing does."""
    site, length = points.site, _as_float(size, points)
    inside = site.op("And", points >= -1.0, points <= length)
    place = site.op("Min", site.op("Max", points, 0.0), length - 1.0).unsqueeze(2)
    weights = (1.0 - site.op("Abs", place - site.range(size).cast(points.dtype))).relu()
    return weights * inside.unsqueeze(2).cast(points.dtype)


@rewrite("DeformConv")
def rewrite_deformable_conv(site: Site) -> Value:
    """The pixels that each place of the kernel reads, gathered between the grid points, and one product."""
    x, weight, offset = (site.input(at) for at in range(3))
    kernel = [weight.fixed_size(axis, "kernel") for axis in range(2, weight.rank)]
    count, taps = len(kernel), int(np.prod(kernel))
    group, parts = site.attribute("group", 1), site.attribute("offset_group", 1)
    result = [offset.fixed_size(axis, "offsets") for axis in range(2, offset.rank)]
    area, channels, batch = int(np.prod(result)), x.fixed_size(1, "channels"), x.dim(0)
    moved = offset.reshape(-1, taps, count, area)
    corners = []
    for at, base in enumerate(_regular_places(site, kernel, result)):
        place = (moved.slice(2, at, at + 1).squeeze(2) + site.constant(base.astype(x.dtype))).reshape(-1, taps * area)
        corners.append(_corners(place, "linear"))
    sizes = [x.fixed_size(axis, "image") for axis in range(2, x.rank)]
    flat = x.reshape(-1, channels // parts, int(np.prod(sizes)))
    total = None
    for chosen in product(*corners):
        term = _pixels(flat, [place for place, _ in chosen], sizes, "zeros", True)
        for _, near in chosen:
            assert near is not None
            term = term * near.unsqueeze(1)
        total = term if total is None else total + term
    assert total is not None
    if site.has(4):
        total = total * site.input(4).reshape(-1, 1, taps * area)
    columns = total.reshape(batch, group, channels // group * taps, area)
    outputs = weight.fixed_size(0, "kernel")
    made = weight.reshape(group, outputs // group, channels // group * taps) @ columns
    made = made.reshape(batch, outputs, *result)
    return made + site.input(3).reshape(-1, *[1] * count) if site.has(3) else made


def _regular_places(site: Site, kernel: Sequence[int], result: Sequence[int]) -> list[NDArray[np.float64]]:
    """Where a convolution without offsets would read, along each axis: [taps, places]."""
    count = len(kernel)
    strides, dilations = (site.attribute(name, [1] * count) for name in ("strides", "dilations"))
    pads = site.attribute("pads", [0] * (2 * count))
    taps = np.meshgrid(*(np.arange(size) * step for size, step in zip(kernel, dilations, strict=True)), indexing="ij")
    starts = np.meshgrid(*(np.arange(size) * step for size, step in zip(result, strides, strict=True)), indexing="ij")
    return [taps[at].ravel()[:, None] + starts[at].ravel()[None].astype(np.float64) - pads[at] for at in range(count)]
