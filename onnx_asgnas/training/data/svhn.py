"""SVHN, street view house numbers (Netzer et al. 2011), cropped digits: MATLAB files."""

from __future__ import annotations

import io

import numpy as np

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.dataset import Array, Dataset
from onnx_asgnas.training.data.images import Format, Pixels, stored_images
from onnx_asgnas.training.data.publisher import Release, folder_of
from onnx_asgnas.training.data.registry import DataRequest, register

_PAGE = "http://ufldl.stanford.edu/housenumbers"
RELEASE = Release(
    name="svhn",
    page=_PAGE,
    files={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)
EXTRA = Release(name="svhn", page=_PAGE, files={"extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7"})
FORMAT = Format(name="svhn", mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970), classes=10)


@register("svhn")
def open_svhn(
    location: str,
    request: DataRequest,
    *,
    extra: bool = False,
    train: int | None = None,
    validation: int | float | None = None,
    augment: str = "",
) -> Dataset:
    """73,257 training and 26,032 test images from a folder with train_32x32.mat and test_32x32.mat.

    With `extra` the 531,131 easier images of extra_32x32.mat train too. The rest as for CIFAR-10; mind that a mirrored
    digit is another one.
    """
    place = folder_of(location, "svhn")
    content = RELEASE.read(place) | (EXTRA.read(place) if extra else {})
    parts = {name: _read(data, name) for name, data in content.items()}
    test = parts.pop("test_32x32.mat")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
    return stored_images(FORMAT, request, (images, labels), test, part=train, validation=validation, augment=augment)


def _read(content: bytes, name: str) -> tuple[Pixels, Array]:
    """X is [32, 32, 3, N]; y is [N, 1], with 10 for the digit 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(io.BytesIO(content), variable_names=["X", "y"])
        images, labels = found["X"], found["y"].reshape(-1).astype(np.int64)
    except (MatReadError, OSError, ValueError, TypeError, NotImplementedError, KeyError) as problem:
        raise DataError(f"{name} is no MATLAB file with X and y: {problem}", fix="Fetch it anew.") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != len(labels):
        raise DataError(f"{name} holds X of shape {list(images.shape)} and {len(labels)} labels", fix="Fetch it anew.")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels % 10
