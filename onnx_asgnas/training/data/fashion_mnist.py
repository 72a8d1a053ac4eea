"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): the four IDX files of a folder, or the embedded subset."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.dataset import Dataset
from onnx_asgnas.training.data.images import Format, ImageInput, input_of, stored_images
from onnx_asgnas.training.data.registry import DataRequest, register
from onnx_asgnas.training.data.selection import choose_parts

DEFAULT_FOLDER = "/usr/share/datasets/fashion-mnist"
MINI = "fashion_mnist_mini.npz"
MEAN, STD = 0.2860, 0.3530
"""Of the pixels of the 60,000 training images, scaled to [0, 1]."""
CLASSES = 10

# Of the unpacked content: distributions pack the same content anew, so the archives' own checksums differ.
_FILES = {
    "train-images-idx3-ubyte": (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}

Bytes = NDArray[np.uint8]


@register("fashion-mnist")
def open_full(
    location: str,
    request: DataRequest,
    *,
    train: int | None = None,
    validation: int | float | None = None,
    augment: str = "",
) -> Dataset:
    """60,000 training and 10,000 test images from a folder (default: where Debian's package puts them).

    Images are float32 [N, 1, 28, 28] (or [N, 28, 28, 1] where the model reads that), normalised by the training pixels'
    mean and standard deviation. `train` takes a balanced part of that size, `validation` holds one out in place of the
    test images; `augment` names what happens to training batches, as crop,flip,cutout,mixup. Raises DataError when a
    file is missing, or differs from the published one.
    """
    folder = Path(location or DEFAULT_FOLDER)
    arrays = (
        *_read_pair(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        *_read_pair(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    )
    return _dataset("fashion-mnist", *arrays, request, train, validation, augment)


@register("fashion-mnist-mini")
def open_mini(
    location: str,
    request: DataRequest,
    *,
    train: int | None = None,
    validation: int | float | None = None,
    augment: str = "",
) -> Dataset:
    """5,000 training and 1,000 test images that come with the package, 10 classes alike; otherwise as the full set.

    The training images are those of `fashion-mnist?train=5000` (tools/make_fashion_mnist_mini.py made the file).
    """
    if location:
        raise DataError("fashion-mnist-mini comes with the package and has no folder", fix="Leave the folder out.")
    resource = importlib.resources.files(__package__).joinpath(MINI)
    with resource.open("rb") as file, np.load(file) as content:
        names = ("train_images", "train_labels", "test_images", "test_labels")
        train_images, train_labels, test_images, test_labels = (content[name] for name in names)
    arrays = (train_images, train_labels, test_images, test_labels)
    return _dataset("fashion-mnist-mini", *arrays, request, train, validation, augment)


def read_idx(folder: Path, name: str) -> Bytes:
    """One of the four files (packed or not) as bytes of the shape that its header tells.

    Raises DataError when it is missing, damaged, or not the published one.
    """
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise DataError(
            f"{folder / name}.gz is missing",
            fix="Install Debian's package dataset-fashion-mnist, or put the four .gz files of the repository "
            "zalandoresearch/fashion-mnist into a folder and give fashion-mnist:FOLDER; fashion-mnist-mini needs none.",
            path=str(folder),
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{path} cannot be read: {problem}", fix="Fetch it anew.", path=str(path)) from None
    size, checksum = _FILES[name]
    if len(content) != size:
        raise DataError(
            f"{path} holds {len(content):,} bytes unpacked, the published file {size:,}",
            fix="Fetch it anew; a set in the same form but of other images can be given as npz:FILE.",
            path=str(path),
        )
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DataError(
            f"{path} differs from the published file (SHA-256 of its content)",
            fix="Fetch it anew; a set in the same form but of other images can be given as npz:FILE.",
            path=str(path),
        )
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4).astype(int)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_pair(folder: Path, images: str, labels: str) -> tuple[Bytes, Bytes]:
    return read_idx(folder, images), read_idx(folder, labels)


def _dataset(
    name: str,
    train_images: Bytes,
    train_labels: Bytes,
    test_images: Bytes,
    test_labels: Bytes,
    request: DataRequest,
    train: int | None,
    validation: int | float | None,
    augment: str,
) -> Dataset:
    if augment:
        form = Format(name=name, mean=(MEAN,), std=(STD,), classes=CLASSES)
        training, test = (train_images[:, None], train_labels), (test_images[:, None], test_labels)
        return stored_images(form, request, training, test, part=train, validation=validation, augment=augment)
    read = input_of(request, name)
    kept, held = choose_parts(train_labels, train=train, validation=validation)
    if held is not None:
        test_images, test_labels = train_images[held], train_labels[held]
    parts = ((train_images[kept], train_labels[kept], "training"), (test_images, test_labels, "test"))
    (first, second) = (
        request.split({read.name: _normalise(images, read)}, labels, where=f"the {part} data of {name}")
        for images, labels, part in parts
    )
    return Dataset(name=name, train=first, test=second, classes=CLASSES)


def _normalise(images: Bytes, read: ImageInput) -> NDArray[np.float32]:
    """Bytes [N, 28, 28] as float32 with one channel, of mean 0 and deviation 1, by a table of the 256 values."""
    table = ((np.arange(256) / 255 - MEAN) / STD).astype(np.float32)
    return table[images][..., None] if read.channels_last else table[images][:, None]
