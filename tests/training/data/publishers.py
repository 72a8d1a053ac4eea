"""Tiny files in the forms in which publishers ship their images."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Pixels = NDArray[np.uint8]


def pixels(count: int, size: int, seed: int = 0) -> Pixels:
    """Random images [N, 3, size, size]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


class OldArray:
    """An array that is pickled as Python 2 did, its bytes as text."""

    def __init__(self, array: Pixels) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        version, shape, dtype, order, data = self._array.__reduce__()[2]  # type: ignore[misc]
        reconstruct, arguments = np.empty(0).__reduce__()[:2]
        return reconstruct, (*arguments[:2], "b"), (version, shape, dtype, order, data.decode("latin1"))


def cifar_python(folder: Path, images: list[Pixels], labels: list[list[int]]) -> dict[str, bytes]:
    """The six pickled batches, as Python 2 wrote them; gives their content."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    content = {
        name: pickle.dumps({"data": OldArray(x.reshape(len(x), -1)), "labels": y, "batch_label": name}, protocol=2)
        for name, x, y in zip(names, images, labels, strict=True)
    }
    return written(folder / "cifar-10-batches-py", content)


def cifar_binary(folder: Path, images: list[Pixels], labels: list[list[int]]) -> dict[str, bytes]:
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    content = {
        name: np.concatenate([np.array(y, np.uint8)[:, None], x.reshape(len(x), -1)], axis=1).tobytes()
        for name, x, y in zip(names, images, labels, strict=True)
    }
    return written(folder / "cifar-10-batches-bin", content)


def svhn(folder: Path, name: str, images: Pixels, digits: list[int]) -> bytes:
    buffer = io.BytesIO()
    labels = np.array([10 if digit == 0 else digit for digit in digits], np.uint8)[:, None]
    savemat(buffer, {"X": images.transpose(2, 3, 1, 0), "y": labels})
    return written(folder, {name: buffer.getvalue()})[name]


def stl10(folder: Path, part: str, images: Pixels, labels: list[int]) -> dict[str, bytes]:
    """Column by column, labels from 1."""
    content = {
        f"{part}_X.bin": np.ascontiguousarray(images.swapaxes(2, 3)).tobytes(),
        f"{part}_y.bin": (np.array(labels, np.uint8) + 1).tobytes(),
    }
    return written(folder / "stl10_binary", content)


def tar_of(content: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def devkit(wnids: list[str], ground_truth: list[int]) -> bytes:
    """ImageNet's development kit: class numbers from 1 in the order of `wnids`, and those of the validation images."""
    rows = np.zeros((len(wnids), 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for at, wnid in enumerate(wnids):
        rows[at, 0] = (np.array([[at + 1]]), wnid)
    meta = io.BytesIO()
    savemat(meta, {"synsets": rows})
    truth = "\n".join(map(str, ground_truth)) + "\n"
    folder = "ILSVRC2012_devkit_t12/data"
    return tar_of(
        {f"{folder}/meta.mat": meta.getvalue(), f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth.encode()},
        "w:gz",
    )


def encoded(colour: Any, size: tuple[int, int] = (40, 30), form: str = "JPEG", mode: str = "RGB") -> bytes:
    """An image file of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, form)
    return buffer.getvalue()


def written(folder: Path, content: dict[str, bytes]) -> dict[str, bytes]:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return content
