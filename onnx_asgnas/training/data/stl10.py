"""STL-10 (Coates, Lee, Ng 2011): images of 96 pixels in binary files."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.dataset import Array, Dataset
from onnx_asgnas.training.data.images import Format, Pixels, input_of, stored_images
from onnx_asgnas.training.data.publisher import Release, folder_of
from onnx_asgnas.training.data.registry import DataRequest, register

RELEASE = Release(
    name="stl10",
    page="https://cs.stanford.edu/~acoates/stl10",
    folder="stl10_binary",
    archive="stl10_binary.tar.gz",
    archive_md5="91f7769df0f17e558f3565bffb0c7dfb",
    files={
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    },
)
FORMAT = Format(name="stl10", mean=(0.4467, 0.4398, 0.4066), std=(0.2603, 0.2566, 0.2713), classes=10)
SIZE = 96


@register("stl10")
def open_stl10(
    location: str,
    request: DataRequest,
    *,
    size: int = 0,
    train: int | None = None,
    validation: int | float | None = None,
    augment: str = "",
) -> Dataset:
    """5,000 training and 8,000 test images from a folder with the archive, or its files; the unlabelled are not read.

    `size` is a divisor of 96 to which images are averaged (0: what the model reads). The rest as for CIFAR-10.
    """
    content = RELEASE.read(folder_of(location, "stl10"))
    wanted = size or input_of(request, "stl10").size or SIZE
    if wanted < 1 or SIZE % wanted:
        raise DataError(
            f"images of {SIZE} pixels cannot be averaged to {wanted}", fix="Choose 24, 32, 48 or 96.", argument="size"
        )
    train_part, test_part = (_pair(content, part, wanted) for part in ("train", "test"))
    return stored_images(FORMAT, request, train_part, test_part, part=train, validation=validation, augment=augment)


def _pair(content: dict[str, bytes], part: str, size: int) -> tuple[Pixels, Array]:
    """The images are stored column by column, the labels go from 1 to 10."""
    images, labels = (np.frombuffer(content[f"{part}_{role}.bin"], np.uint8) for role in "Xy")
    if images.size != len(labels) * 3 * SIZE * SIZE:
        raise DataError(
            f"{part}_X.bin holds {images.size:,} bytes, {len(labels):,} labels need {len(labels) * 3 * SIZE * SIZE:,}",
            fix="Fetch them anew.",
        )
    return _averaged(images.reshape(-1, 3, SIZE, SIZE).swapaxes(2, 3), size), labels.astype(np.int64) - 1


def _averaged(images: Pixels, size: int) -> Pixels:
    """Images of `size` pixels, each the mean of a square of the old ones."""
    side = images.shape[-1] // size
    if side == 1:
        return np.ascontiguousarray(images)
    small = np.empty((*images.shape[:2], size, size), np.uint8)
    for at in range(0, len(images), 500):  # the means are floats, and need not be so for all at once
        squares = images[at : at + 500].reshape(-1, 3, size, side, size, side)
        small[at : at + 500] = np.rint(squares.mean(axis=(3, 5), dtype=np.float32))
    return small
