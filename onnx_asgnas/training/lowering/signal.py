"""Fourier transforms, as products with matrices of sines and cosines."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Site, Value


@rewrite("DFT")
def rewrite_fourier_transform(site: Site) -> Value:
    """DFT along one axis of [..., 1 or 2]; before opset 20 the axis was an attribute."""
    x = site.input()
    if site.graph.opset >= 20:
        axis = int(np.ravel(site.fixed(2, "axis"))[0]) if site.has(2) else -2
    else:
        axis = site.attribute("axis", 1)
    axis %= x.rank
    length = int(np.ravel(site.fixed(1, "length"))[0]) if site.has(1) else None
    one_sided, inverse = bool(site.attribute("onesided", 0)), bool(site.attribute("inverse", 0))
    if one_sided and inverse:
        raise site.refusal("it is inverse and one-sided")
    moved = x.swap(axis, x.rank - 2)
    return _transformed(moved, length, one_sided=one_sided, inverse=inverse).swap(axis, x.rank - 2)


@rewrite("STFT")
def rewrite_short_time_fourier_transform(site: Site) -> Value:
    """STFT: frames gathered, windowed, and transformed."""
    signal, step = site.input(0), int(site.fixed(1, "step").item())
    total = signal.fixed_size(1, "frames")
    window = site.input(2) if site.has(2) else None
    width = int(site.fixed(3, "frame length").item()) if site.has(3) else None
    if width is None:
        width = window.fixed_size(0, "frame length") if window is not None else total
    starts = np.arange(0, total - width + 1, step)
    x = signal if signal.rank == 3 else signal.unsqueeze(2)
    frames = x.gather((starts[:, None] + np.arange(width)).ravel(), 1)
    frames = frames.reshape(x.dim(0), len(starts), width, x.dim(2))
    if window is not None:
        frames = frames * window.reshape(-1, 1)
    return _transformed(frames, None, one_sided=bool(site.attribute("onesided", 1)), inverse=False)


def _transformed(x: Value, length: int | None, *, one_sided: bool, inverse: bool) -> Value:
    """[..., n, 1 or 2] to [..., k, 2], its real and imaginary parts."""
    site, last = x.site, x.rank - 1
    given = x.fixed_size(last - 1, "transform")
    length = length or given
    if length < given:
        x = x.slice(last - 1, 0, length)
    used = min(given, length)
    count = length // 2 + 1 if one_sided else length
    angles = 2 * np.pi * np.outer(np.arange(count), np.arange(used)) / length
    scale = 1 / length if inverse else 1.0
    cosine, sine = ((f(angles) * scale).astype(x.dtype) for f in (np.cos, np.sin))
    real = x.slice(last, 0, 1)
    re, im = cosine @ real, -(sine @ real)
    if inverse:
        im = -im
    if x.shape[last] == 2:
        imaginary = x.slice(last, 1, 2)
        across = sine @ imaginary
        re, im = (re - across if inverse else re + across), im + cosine @ imaginary
    return site.concat([re, im], last)
