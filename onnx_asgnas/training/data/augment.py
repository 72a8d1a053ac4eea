"""Augmentation of batches of images: crop, flip, cutout, mixup, on whole arrays.

What a batch becomes depends on its images and a seed alone, so a resumed run gets the same bits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError

Pixels = NDArray[np.uint8]
Images = NDArray[np.float32]

NAMES = ("crop", "resized-crop", "flip", "cutout", "mixup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What happens to the images of a shuffled batch; zero means not.

    `crop` is by how many pixels an image may be shifted, black coming in from the sides; `flip` the share of the images
    that are mirrored; `cutout` the side of a square that is cleared to the mean (DeVries and Taylor 2017); `mixup` the
    α of the Beta distribution by which two images and their labels are mixed (Zhang et al. 2018); `resized_crop` takes
    a random part of each image where it is decoded.
    """

    crop: int = 0
    resized_crop: bool = False
    flip: float = 0.0
    cutout: int = 0
    mixup: float = 0.0

    @property
    def any(self) -> bool:
        """Does anything happen."""
        return any(getattr(self, field.name) for field in fields(self))

    def pixels(self, images: Pixels, random: np.random.Generator) -> Pixels:
        """Bytes [N, C, H, W], shifted and mirrored; the argument is not changed."""
        if self.crop:
            images = _shifted(images, self.crop, random)
        if self.flip:
            mirrored = random.random(len(images)) < self.flip
            images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
        return images

    def images(self, images: Images, random: np.random.Generator) -> None:
        """Normalised images [N, C, H, W], with a square of each at zero; in place."""
        if self.cutout:
            _clear(images, self.cutout, random)

    def mix(
        self, images: Images, labels: NDArray[np.int64], classes: int, random: np.random.Generator
    ) -> tuple[Images, NDArray[np.float32]]:
        """Each image mixed with another one of the batch, and the shares of the classes, float32 [N, classes]."""
        share = np.float32(random.beta(self.mixup, self.mixup))
        partner = random.permutation(len(images))
        one_hot = np.eye(classes, dtype=np.float32)[labels]
        return (
            share * images + (1 - share) * images[partner],
            share * one_hot + (1 - share) * one_hot[partner],
        )


def parse_augmentation(text: str, size: int, *, known: Collection[str] = NAMES) -> Augmentation:
    """The augmentation that a text such as `crop,flip,cutout:16` names, for square images of `size` pixels.

    A number after a colon sets the strength; without it the crop is an eighth of the size, as 4 of 32, the cutout half
    of it, the flip 0.5 and mixup's α 0.2. Raises DataError for an unknown name or a number out of range.
    """
    defaults: dict[str, float] = {"crop": max(1, size // 8), "flip": 0.5, "cutout": max(1, size // 2), "mixup": 0.2}
    given: dict[str, float | int | bool] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, number = part.partition(":")
        if name not in known:
            raise DataError(
                f"there is no augmentation {name!r} for this data", fix=f"Choose from: {', '.join(known)}.", name=name
            )
        if name == "resized-crop":
            given["resized_crop"] = True
            continue
        value = _number(number, part) if colon else defaults[name]
        whole, most = name in ("crop", "cutout"), {"crop": size, "cutout": size, "flip": 1}.get(name, np.inf)
        if not 0 < value <= most or (whole and value != int(value)):
            raise DataError(f"{part!r} is out of range", fix=f"As {name}:{defaults[name]:g}.", name=name)
        given[name] = int(value) if whole else value
    return Augmentation(**given)  # type: ignore[arg-type]


def _number(text: str, part: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{part!r} has no number after the colon", fix="Write crop:4, say, or crop.") from None


def _shifted(images: Pixels, most: int, random: np.random.Generator) -> Pixels:
    """Each image shifted by up to `most` pixels along both axes."""
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    down, across = random.integers(0, 2 * most + 1, (2, count))
    shifted: Pixels = windows[np.arange(count), :, down, across]
    return shifted


def _clear(images: Images, side: int, random: np.random.Generator) -> None:
    """A square of each image at zero; its centre is anywhere in the image, so that it may reach beyond the border."""
    count, _, height, width = images.shape
    rows = _near(random.integers(0, height, (count,)), height, side)
    columns = _near(random.integers(0, width, (count,)), width, side)
    inside = rows[:, :, None] & columns[:, None, :]
    images *= ~inside[:, None]


def _near(centres: NDArray[np.int64], length: int, side: int) -> NDArray[np.bool_]:
    """For each centre which of `length` places lie in the `side` around it, bool [centres, length]."""
    start = (centres - side // 2)[:, None]
    places = np.arange(length)[None]
    return (places >= start) & (places < start + side)
