"""CIFAR-10 (Krizhevsky 2009), in the publisher's two forms: pickled batches, and binary ones."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.dataset import Array, Dataset
from onnx_asgnas.training.data.images import Format, Pixels, stored_images
from onnx_asgnas.training.data.publisher import Release, folder_of
from onnx_asgnas.training.data.registry import DataRequest, register

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PYTHON = Release(
    name="cifar10",
    page=_PAGE,
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
BINARY = Release(
    name="cifar10",
    page=_PAGE,
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
    files={f"{name}.bin": "" for name in PYTHON.files},  # no sums of single files are published
)
FORMAT = Format(name="cifar10", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), classes=10)
SHAPE = (3, 32, 32)
SAMPLES = 10_000
"""Images in each of the six files."""


@register("cifar10")
def open_cifar10(
    location: str,
    request: DataRequest,
    *,
    train: int | None = None,
    validation: int | float | None = None,
    augment: str = "",
) -> Dataset:
    """50,000 training and 10,000 test images from a folder that holds one of the two archives, or its files.

    Images are float32 [N, 3, 32, 32], normalised by the training pixels. `train` takes a balanced part of that size,
    `validation` holds one out in place of the test images; `augment` names what happens to training batches, as
    crop,flip,cutout. Raises DataError when a file is missing, damaged, or differs from the published one.
    """
    place = folder_of(location, "cifar10")
    release, parse = (BINARY, _binary) if BINARY.is_in(place) and not PYTHON.is_in(place) else (PYTHON, _pickled)
    parts = [parse(content, name) for name, content in release.read(place).items()]
    training = tuple(np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    return stored_images(
        FORMAT,
        request,
        (training[0], training[1]),
        parts[-1],
        part=train,
        validation=validation,
        augment=augment,
    )


def _binary(content: bytes, name: str) -> tuple[Pixels, Array]:
    """Records of one label and 3,072 bytes."""
    length = 1 + int(np.prod(SHAPE))
    if len(content) != SAMPLES * length:
        raise DataError(
            f"{name} holds {len(content):,} bytes, the published file {SAMPLES * length:,}", fix="Fetch it anew."
        )
    records = np.frombuffer(content, np.uint8).reshape(SAMPLES, length)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].astype(np.int64)


def _pickled(content: bytes, name: str) -> tuple[Pixels, Array]:
    """A dict with `data`, uint8 [N, 3072], and `labels`."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        images = np.asarray(batch["data"], np.uint8).reshape(-1, *SHAPE)
        labels = np.asarray(batch["labels"], np.int64)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, *_WRONG) as problem:
        raise DataError(f"{name} is no batch of CIFAR-10: {problem}", fix="Fetch it anew.") from None
    return images, labels


_WRONG = (KeyError, TypeError, ValueError)


class _Unpickler(pickle.Unpickler):
    """One that makes arrays and nothing else: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """The three names that an array needs."""
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[name]
