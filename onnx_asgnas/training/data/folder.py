"""Images by class, `folder:DIR`: one folder for each class, in one folder or in a training and a test one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.augment import Augmentation, parse_augmentation
from onnx_asgnas.training.data.dataset import Dataset
from onnx_asgnas.training.data.image_index import ImageIndex, index_folder
from onnx_asgnas.training.data.images import (
    Decoded,
    Format,
    ImageSplit,
    PixelSource,
    Stored,
    input_of,
    require_fit,
)
from onnx_asgnas.training.data.registry import DataRequest, register
from onnx_asgnas.training.data.selection import Indices, stratified
from onnx_asgnas.training.decoding.pool import DecodingPool, default_workers

log = logging.getLogger(__name__)

HELD_OUT = 0.1
"""Fraction of each class held out where there is no folder of test images and the user names no other."""
TRAIN, TEST = "train", ("test", "val", "validation")
COLOUR = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the channels of ImageNet's images, which most trained networks expect."""
GREY = (0.449,), (0.226,)
IN_MEMORY = 2**31
"""Bytes up to which decoded images are kept; more are decoded anew in every epoch."""
_BATCH = 64


@register("folder")
def open_folder(
    location: str,
    request: DataRequest,
    *,
    size: int = 0,
    mean: float | tuple[float, ...] | None = None,
    std: float | tuple[float, ...] | None = None,
    validation: float | None = None,
    seed: int = 0,
    augment: str = "",
    workers: int = 0,
) -> Dataset:
    """Any images that Pillow reads, in DIR/<class>/, or in DIR/train/<class>/ and DIR/test/<class>/ (or val).

    Each becomes the largest square in its middle, of `size` pixels (0: what the model reads), with as many channels as
    the model reads, normalised by `mean` and `std` of pixels in [0, 1] (one number, or one for each channel; default:
    those of ImageNet). Without a test folder `validation` (default a tenth) of each class is held out by `seed`.
    `augment` as for CIFAR-10, or `resized-crop`; `workers` is the number of decoding processes. Up to 2 GB of decoded
    images are kept, unless random parts are taken. Raises DataError, naming it, for a file that is no image or damaged.
    """
    if not location:
        raise DataError("folder names no folder", fix="Write folder:DIR.")
    root = Path(location).expanduser()
    read = input_of(request, f"folder:{location}")
    size, channels = size or read.size, read.channels or 3
    if size < 1 or channels not in (1, 3):
        raise DataError(
            f"images have 1 or 3 channels and a size, the model reads {request.inputs[0]}",
            fix="Give the size, as ?size=64, where the model leaves it open.",
        )
    require_fit(request, (1, channels, size, size), location)
    form = _format(root.name, channels, mean, std)
    change = parse_augmentation(augment, size)
    train, test = _parts(root)
    _require_classes(train, request, root)
    pool = DecodingPool(workers or default_workers())

    def split(index: ImageIndex, source: PixelSource, chosen: Indices, augmentation: Augmentation) -> ImageSplit:
        return ImageSplit(
            name=read.name,
            channels_last=read.channels_last,
            source=source,
            labels=index.labels,
            chosen=chosen,
            table=form.table,
            classes=request.classes or len(index.classes),
            augmentation=augmentation,
        )

    def source(index: ImageIndex) -> PixelSource:
        files = Decoded(places=index, channels=channels, size=size, margin=1.0, pool=pool)
        fits = len(index) * channels * size * size <= IN_MEMORY
        return _stored(files, root) if fits and not change.resized_crop else files

    images = source(train)
    if test is not None and validation is None:
        second = split(test, source(test), np.arange(len(test)), Augmentation())
        kept = np.arange(len(train))
    else:
        kept, held = stratified(train.labels, HELD_OUT if validation is None else validation, seed)
        second = split(train, images, held, Augmentation())
    first = split(train, images, kept, change)
    return Dataset(name=root.name, train=first, test=second, classes=len(train.classes))


def _parts(root: Path) -> tuple[ImageIndex, ImageIndex | None]:
    """The images to train with, and those to test with where they have a folder of their own."""
    if not (root / TRAIN).is_dir():
        return index_folder(root), None
    train = index_folder(root / TRAIN)
    folder = next((root / name for name in TEST if (root / name).is_dir()), None)
    if folder is None:
        return train, None
    test = index_folder(folder)
    require_same_classes(train, test)
    return train, test


def require_same_classes(train: ImageIndex, test: ImageIndex) -> None:
    """Raise DataError, naming one, for a class that only one of the two has."""
    lone = sorted(set(train.classes) ^ set(test.classes))
    if lone:
        has, lacks = (train, test) if lone[0] in train.classes else (test, train)
        raise DataError(
            f"{has.root} has a class {lone[0]!r}, {lacks.root} has not ({len(lone)} such classes)",
            fix="Give both the same folders.",
        )


def _require_classes(index: ImageIndex, request: DataRequest, root: Path) -> None:
    if request.classes is not None and len(index.classes) > request.classes:
        raise DataError(
            f"{root} has {len(index.classes)} classes, the model tells {request.classes} apart",
            fix="Remove some folders, or build the model for as many classes.",
        )


def _format(
    name: str, channels: int, mean: float | tuple[float, ...] | None, std: float | tuple[float, ...] | None
) -> Format:
    default = COLOUR if channels == 3 else GREY
    return Format(
        name=name,
        mean=_for_channels("mean", mean, channels) or default[0],
        std=_for_channels("std", std, channels) or default[1],
        classes=0,
    )


def _for_channels(name: str, value: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel; () where none was given. The value is what stands in the text."""
    if value is None:
        return ()
    values = (value,) * channels if isinstance(value, (int, float)) else value
    numbers = isinstance(values, tuple) and all(isinstance(v, (int, float)) for v in values)
    if not numbers or len(values) != channels or (name == "std" and min(values) <= 0):
        raise DataError(
            f"{name} is {value!r} for {channels} channels", fix=f"Write ?{name}=0.5, or one for each.", argument=name
        )
    return tuple(map(float, values))


def _stored(files: Decoded, root: Path) -> Stored:
    """All images decoded, and one line about those that are grey among colour ones, or the other way round."""
    images = np.empty((len(files), files.channels, files.size, files.size), np.uint8)
    parts = [np.arange(at, min(at + _BATCH, len(files))) for at in range(0, len(files), _BATCH)]
    other: list[int] = []
    for part, (pixels, unlike) in zip(parts, files.with_other((part, None) for part in parts), strict=True):
        images[part] = pixels
        other += part[list(unlike)].tolist()
    if other:
        what, become = ("grey", "three equal channels") if files.channels == 3 else ("coloured", "their brightness")
        log.warning(
            "%s: %d of %d images are %s and get %s, as %s",
            root,
            len(other),
            len(files),
            what,
            become,
            files.places[other[0]].name,
        )
    files.pool.close()
    return Stored(images)
