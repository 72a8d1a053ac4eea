"""Splits of images: bytes in memory or decoded as they are needed, augmented and normalised batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.augment import Augmentation, parse_augmentation
from onnx_asgnas.training.data.checks import fit_inputs, fit_targets
from onnx_asgnas.training.data.dataset import Array, Batch, Dataset, as_tensor
from onnx_asgnas.training.data.registry import DataRequest
from onnx_asgnas.training.data.selection import Indices, choose_parts
from onnx_asgnas.training.decoding.jobs import Job, Place
from onnx_asgnas.training.decoding.pool import DecodingPool

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Wanted = tuple[Indices, "tuple[int, ...] | None"]
"""The images of a batch, and the seed of a random part of each (None: the middle)."""

_CHANNELS = (1, 3)
_OF_ARRAYS = ("crop", "flip", "cutout", "mixup")


class PixelSource(Protocol):
    """Where the bytes of images come from."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def stream(self, batches: Iterable[Wanted]) -> Iterator[Pixels]:
        """Bytes [N, C, H, W] for each batch that is asked for, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """Images that lie in memory."""

    images: Pixels

    def __len__(self) -> int:
        return len(self.images)

    def stream(self, batches: Iterable[Wanted]) -> Iterator[Pixels]:
        """See PixelSource; there are no random parts of what is stored."""
        return (self.images[indices] for indices, _ in batches)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Image files, decoded by worker processes a few batches ahead."""

    places: Sequence[Place]
    channels: int
    size: int
    margin: float
    pool: DecodingPool

    def __len__(self) -> int:
        return len(self.places)

    def stream(self, batches: Iterable[Wanted]) -> Iterator[Pixels]:
        """See PixelSource; raises DataError, naming the file, for one that cannot be decoded."""
        for pixels, _ in self.with_other(batches):
            yield pixels

    def with_other(self, batches: Iterable[Wanted]) -> Iterator[tuple[Pixels, tuple[int, ...]]]:
        """The bytes, and which images of the batch had more or fewer channels."""
        for answer in self.pool.decode(self._job(indices, seed) for indices, seed in batches):
            if answer.images is None:
                raise DataError(answer.problem, fix="Remove or replace the file.")
            yield answer.images, answer.other

    def _job(self, indices: Indices, seed: tuple[int, ...] | None) -> Job:
        return Job(
            places=tuple(self.places[i] for i in indices.tolist()),
            channels=self.channels,
            size=self.size,
            margin=self.margin,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSplit:
    """Images and labels. Shuffled batches are augmented, batches in order are not.

    `name` is the model's input, `chosen` are the images of the source that belong to the split, `table` gives the
    normalised value of each of 256 for each channel, float32 [C, 256]. Batches are [N, C, H, W], or [N, H, W, C] with
    `channels_last`.
    """

    name: str
    source: PixelSource
    labels: NDArray[np.int64]
    chosen: Indices
    table: NDArray[np.float32]
    classes: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    channels_last: bool = False

    def __len__(self) -> int:
        return len(self.chosen)

    def steps(self, batch_size: int, *, shuffle: bool) -> int:
        """Number of batches that `batches` yields."""
        whole, rest = divmod(len(self), batch_size)
        return whole + (rest > 0 and (whole == 0 or not shuffle))

    def batches(self, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0) -> Iterator[Batch]:
        """See `Split.batches`; what augmentation draws follows from seed, epoch and the number of the batch."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self)) if shuffle else np.arange(len(self))
        samples = self.chosen[order]
        steps = self.steps(batch_size, shuffle=shuffle)
        parts = [samples[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
        random_part = shuffle and self.augmentation.resized_crop
        wanted = ((part, (seed, epoch, step) if random_part else None) for step, part in enumerate(parts))
        for step, (part, pixels) in enumerate(zip(parts, self.source.stream(wanted), strict=True)):
            drawn = np.random.default_rng((seed, epoch, step, 1)) if shuffle and self.augmentation.any else None
            yield self._batch(pixels, self.labels[part], drawn)

    def _batch(self, pixels: Pixels, labels: NDArray[np.int64], random: np.random.Generator | None) -> Batch:
        if random is None:
            return self._inputs(normalised(pixels, self.table)), torch.from_numpy(labels)
        change = self.augmentation
        images = normalised(change.pixels(pixels, random), self.table)
        change.images(images, random)
        if not change.mixup:
            return self._inputs(images), torch.from_numpy(labels)
        mixed, shares = change.mix(images, labels, self.classes, random)
        return self._inputs(mixed), torch.from_numpy(shares)

    def _inputs(self, images: NDArray[np.float32]) -> dict[str, torch.Tensor]:
        return {self.name: as_tensor(_channels_last(images) if self.channels_last else images)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """What a set of images is: the name of the set, the mean and deviation of each channel, its classes."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int

    @property
    def table(self) -> NDArray[np.float32]:
        """The normalised value of each byte in each channel."""
        mean, std = np.array(self.mean)[:, None], np.array(self.std)[:, None]
        values: NDArray[np.float64] = (np.arange(256)[None] / 255 - mean) / std
        return values.astype(np.float32)


def normalised(pixels: Pixels, table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bytes [N, C, H, W] as float32, by a table of the 256 values of each channel."""
    images = np.empty(pixels.shape, np.float32)
    for channel, values in enumerate(table):
        np.take(values, pixels[:, channel], out=images[:, channel])
    return images


class ImageInput(NamedTuple):
    """The one image input of a model: its channels and its size in pixels, 0 where they are open.

    It reads [N, C, H, W], or [N, H, W, C] with `channels_last`.
    """

    name: str
    channels: int
    size: int
    channels_last: bool


def input_of(request: DataRequest, name: str) -> ImageInput:
    """The model's image input; raises DataError where it reads something else.

    One or three channels behind the other axes and not before them are channels last, as TensorFlow and JAX have them.
    """
    if len(request.inputs) != 1 or len(request.inputs[0].shape) != 4:
        reads = "; ".join(map(str, request.inputs))
        raise DataError(f"{name} has one array of images, the model reads {reads}", fix="Use npz:FILE or python:….")
    _, *sizes = request.inputs[0].shape
    last = sizes[2] in _CHANNELS and sizes[0] not in _CHANNELS
    channels, height, width = (sizes[2], *sizes[:2]) if last else sizes
    if height != width and None not in (height, width):
        raise DataError(f"{name} gives square images, the model reads {request.inputs[0]}", fix="Use npz:FILE.")
    return ImageInput(request.inputs[0].name, channels or 0, height or width or 0, last)


def stored_images(
    form: Format,
    request: DataRequest,
    train: tuple[Pixels, Array],
    test: tuple[Pixels, Array],
    *,
    part: int | None = None,
    validation: int | float | None = None,
    augment: str = "",
) -> Dataset:
    """A data set whose images [N, C, H, W] lie in memory; `part` and `validation` as in `choose_parts`.

    With `validation` the held-out images take the place of the test images. Raises DataError where they do not fit
    the model.
    """
    read = input_of(request, form.name)
    augmentation = parse_augmentation(augment, train[0].shape[-1], known=_OF_ARRAYS)
    kept, held = choose_parts(train[1], train=part, validation=validation)
    chosen = np.arange(len(train[1]))[kept]
    if held is None:
        tested, held = test, np.arange(len(test[1]))
    else:
        tested = train
    splits = []
    for (images, labels), taken, change, what in (
        (train, chosen, augmentation, "training"),
        (tested, held, Augmentation(), "test"),
    ):
        where = f"the {what} data of {form.name}"
        require_fit(request, images.shape, where)
        checked = fit_targets(labels, samples=len(images), classes=request.classes, where=where)
        splits.append(
            ImageSplit(
                name=read.name,
                channels_last=read.channels_last,
                source=Stored(images),
                labels=checked.astype(np.int64, copy=False),
                chosen=taken,
                table=form.table,
                classes=request.classes or form.classes,
                augmentation=change,
            )
        )
    return Dataset(name=form.name, train=splits[0], test=splits[1], classes=form.classes)


def require_fit(request: DataRequest, shape: tuple[int, ...], where: str) -> None:
    """Raise DataError where the model does not read images of this shape [N, C, H, W], or the split has none."""
    if shape[0] == 0:
        raise DataError(f"{where} holds no samples", fix="Give at least one.")
    read = input_of(request, where)
    one = np.zeros((1, *shape[1:]), np.float32)
    fit_inputs({read.name: _channels_last(one) if read.channels_last else one}, request.inputs, where=where)


def _channels_last(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """From [N, C, H, W] to [N, H, W, C]."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
