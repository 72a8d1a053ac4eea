"""Operators that read an image between its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

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
