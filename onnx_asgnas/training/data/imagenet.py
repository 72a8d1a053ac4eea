"""ImageNet, ILSVRC 2012 (Russakovsky et al. 2015): folders by class, or the publisher's three archives."""

from __future__ import annotations

import io
import logging
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.augment import Augmentation, parse_augmentation
from onnx_asgnas.training.data.dataset import Dataset
from onnx_asgnas.training.data.folder import COLOUR, require_same_classes
from onnx_asgnas.training.data.image_index import ImageIndex, index_folder, index_tar, index_tar_of_tars
from onnx_asgnas.training.data.images import Decoded, Format, ImageSplit, input_of, require_fit
from onnx_asgnas.training.data.publisher import folder_of, md5_of, require_md5
from onnx_asgnas.training.data.registry import DataRequest, register
from onnx_asgnas.training.data.selection import balanced_subset
from onnx_asgnas.training.decoding.pool import DecodingPool, default_workers

log = logging.getLogger(__name__)

ARCHIVES = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}
TRAIN, VALIDATION, DEVKIT = ARCHIVES
CLASSES = 1000
FORMAT = Format(name="imagenet", mean=COLOUR[0], std=COLOUR[1], classes=CLASSES)
MARGIN = 256 / 224
"""The shorter side of a test image, as a multiple of the square that is cut from its middle."""
SIZE = 224


@register("imagenet")
def open_imagenet(
    location: str,
    request: DataRequest,
    *,
    size: int = 0,
    train: int | None = None,
    augment: str = "resized-crop,flip",
    check: bool = False,
    workers: int = 0,
) -> Dataset:
    """1,281,167 training and 50,000 validation images from a folder with train/ and val/ by class, or the archives.

    Images are decoded by `workers` processes while the step before them runs: a random part of each when training, the
    middle when testing, of `size` pixels (0: what the model reads, or 224). `train` takes a balanced part of that size.
    Which files there are is found once and kept in the cache. `check` compares the archives' checksums first, which
    reads 145 GB. Raises DataError when a file is missing or damaged, naming it.
    """
    place = folder_of(location, "imagenet")
    read = input_of(request, "imagenet")
    size = size or read.size or SIZE
    require_fit(request, (1, 3, size, size), "imagenet")
    change = parse_augmentation(augment, size)
    first, second = _parts(place, check)
    if request.classes is not None and len(first.classes) > request.classes:
        raise DataError(
            f"{place} has {len(first.classes)} classes, the model tells {request.classes} apart",
            fix="Build the model for as many classes, as models:regnetx?classes=1000.",
        )
    pool = DecodingPool(workers or default_workers())

    def split(index: ImageIndex, count: int | None, augmentation: Augmentation) -> ImageSplit:
        return ImageSplit(
            name=read.name,
            channels_last=read.channels_last,
            source=Decoded(places=index, channels=3, size=size, margin=MARGIN, pool=pool),
            labels=index.labels,
            chosen=np.arange(len(index)) if count is None else balanced_subset(index.labels, count),
            table=FORMAT.table,
            classes=request.classes or len(index.classes),
            augmentation=augmentation,
        )

    return Dataset(
        name="imagenet",
        train=split(first, train, change),
        test=split(second, None, Augmentation()),
        classes=len(first.classes),
    )


def _parts(place: Path, check: bool) -> tuple[ImageIndex, ImageIndex]:
    """Training and validation images."""
    if (place / "train").is_dir() and (place / "val").is_dir():
        train, test = index_folder(place / "train"), index_folder(place / "val")
        require_same_classes(train, test)
        return train, test
    missing = next((name for name in ARCHIVES if not (place / name).is_file()), None)
    if missing is not None:
        raise DataError(
            f"{place} has neither train/ and val/ nor {missing}",
            fix=f"Fetch {', '.join(ARCHIVES)} from https://image-net.org/download into a folder, or unpack them to "
            "train/<class>/ and val/<class>/, and give imagenet:FOLDER.",
            path=str(place),
        )
    for name, md5 in ARCHIVES.items():
        if check or name == DEVKIT:
            require_md5(md5_of(place / name), md5, place / name)
    train = index_tar_of_tars(place / TRAIN)
    labels = _validation_labels(place / DEVKIT, train.classes)
    return train, index_tar(place / VALIDATION, labels, train.classes)


def _validation_labels(devkit: Path, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The labels of the validation images, in the order of their names, as places in the sorted list of classes.

    The devkit numbers classes in an order of its own, which its meta.mat gives.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with tarfile.open(devkit) as tar:
            members = {Path(member.name).name: member for member in tar if member.isfile()}
            texts = [tar.extractfile(members[n]) for n in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")]
            meta, truth = (text.read() if text is not None else b"" for text in texts)
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        number_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}
        place_of = {name: at for at, name in enumerate(classes)}
        return np.array([place_of[number_of[int(line)]] for line in truth.split()], np.int64)
    except (MatReadError, OSError, EOFError, KeyError, ValueError, IndexError, tarfile.TarError, zlib.error) as problem:
        raise DataError(
            f"{devkit} does not give the labels of the validation images: {problem}",
            fix="Fetch it anew.",
            path=str(devkit),
        ) from None
