"""Decode, crop and resize image files with Pillow."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from onnx_asgnas.training.decoding.jobs import Answer, Job, Pixels, Place

_MODES = {1: "L", 3: "RGB"}
_OF_CHANNELS = {
    1: ("L", "1", "LA", "I", "I;16", "F"),
    3: ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"),
}
_DRAWS = 10
"""How often a random part is drawn anew when it does not fit into the image."""

Box = tuple[float, float, float, float]


def decode(job: Job) -> Answer:
    """All images of a job; what is wrong with one of them is told, and never raised."""
    random = None if job.seed is None else np.random.default_rng(job.seed)
    images = np.empty((len(job.places), job.channels, job.size, job.size), np.uint8)
    other = []
    for at, place in enumerate(job.places):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd metadata, and of large images
                images[at], plain = _decoded(place, job, random)
        except UnidentifiedImageError:
            return Answer(problem=f"{place.name} is no image")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, MemoryError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Answer(problem=f"{place.name} cannot be decoded: {text}")
        if not plain:
            other.append(at)
    return Answer(images=images, other=tuple(other))


def _decoded(place: Place, job: Job, random: np.random.Generator | None) -> tuple[Pixels, bool]:
    """One image as [channels, size, size], and whether it has as many channels as are asked for."""
    with Image.open(io.BytesIO(_bytes_of(place))) as image:
        plain = image.mode in _OF_CHANNELS[job.channels]
        box = _middle(image.size) if random is None else _part(image.size, random)
        wanted = round(job.size * job.margin) if random is None else job.size
        scale = min(box[2] - box[0], box[3] - box[1]) / wanted
        if scale >= 2:  # a JPEG is decoded to a half, a quarter or an eighth at little cost
            whole = image.size
            image.draft(_MODES[job.channels], (math.ceil(whole[0] / scale), math.ceil(whole[1] / scale)))
            box = _times(box, image.size[0] / whole[0], image.size[1] / whole[1])
            box = box[0], box[1], min(box[2], image.size[0]), min(box[3], image.size[1])
        flat = image.convert(_MODES[job.channels])
        if random is None and job.margin > 1:
            box = _within(box, 1 / job.margin)
        small = flat.resize((job.size, job.size), Image.Resampling.BILINEAR, box=box)
    array = np.asarray(small, np.uint8)
    return (array[None] if job.channels == 1 else array.transpose(2, 0, 1)), plain


def _bytes_of(place: Place) -> bytes:
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        return file.read(place.length)


def _middle(size: tuple[int, int]) -> Box:
    """The largest square in the middle of an image of this width and height."""
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def _within(box: Box, fraction: float) -> Box:
    """The middle of a box, of this fraction of its sides."""
    lost = (1 - fraction) / 2
    across, down = lost * (box[2] - box[0]), lost * (box[3] - box[1])
    return box[0] + across, box[1] + down, box[2] - across, box[3] - down


def _times(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _part(size: tuple[int, int], random: np.random.Generator) -> Box:
    """A random part of an image; the middle where none of the draws fits."""
    area = size[0] * size[1]
    draws = random.random((_DRAWS, 4))  # always as many, so that an image does not change what the next one gets
    for share, ratio, left, top in draws:
        part = area * (0.08 + 0.92 * share)
        aspect = math.exp((2 * ratio - 1) * math.log(4 / 3))
        width, height = math.sqrt(part * aspect), math.sqrt(part / aspect)
        if width <= size[0] and height <= size[1]:
            x, y = left * (size[0] - width), top * (size[1] - height)
            return x, y, x + width, y + height
    return _middle(size)
