"""What a worker is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies: a file, or `length` bytes of one from `offset` on. `name` is what messages call it."""

    path: str
    name: str
    offset: int = 0
    length: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A batch of images to decode to [N, channels, size, size].

    Without `seed` the middle of each image is taken, after its shorter side has become `margin` times `size`. With
    `seed` a random part is, of 8 to 100 % of the area and sides 3:4 to 4:3 (Szegedy et al. 2015); equal seeds give
    equal parts.
    """

    places: tuple[Place, ...]
    channels: int
    size: int
    margin: float = 1.0
    seed: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The decoded images, or what is wrong with the first bad one.

    `other` holds the places in the batch of the images that have more or fewer channels than was asked for.
    """

    images: Pixels | None = None
    other: tuple[int, ...] = ()
    problem: str = ""
