"""Fashion-MNIST: the embedded subset, and folders with files that are right, missing or damaged."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data import ArraySplit, Dataset, ModelInput, fashion_mnist, open_data, sources
from onnx_asgnas.training.data.images import ImageSplit

IMAGES = ModelInput(name="input", shape=(None, 1, 28, 28), dtype=np.dtype(np.float32))
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def open_text(text: str) -> tuple[Dataset, ArraySplit, ArraySplit]:
    data = open_data(text, inputs=[IMAGES], classes=10)
    assert isinstance(data.train, ArraySplit)
    assert isinstance(data.test, ArraySplit)
    return data, data.train, data.test


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four small files of the published form, and a table of checksums that knows them."""
    generator = np.random.default_rng(0)
    for name, count in zip(NAMES, (40, 40, 20, 20), strict=True):
        if "images" in name:
            shape: tuple[int, ...] = (count, 28, 28)
            data = generator.integers(0, 256, shape, dtype=np.uint8)
        else:
            shape = (count,)
            data = np.arange(count, dtype=np.uint8) % 10
        content = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + data.tobytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(fashion_mnist._FILES, name, (len(content), hashlib.sha256(content).hexdigest()))
    return tmp_path


def test_the_registry_names_the_sources() -> None:
    assert {"fashion-mnist", "fashion-mnist-mini", "npz", "python"} <= set(sources())


def test_the_embedded_subset() -> None:
    data, train, test = open_text("fashion-mnist-mini")
    assert (len(train), len(test), data.classes) == (5000, 1000, 10)
    assert train.targets.bincount().tolist() == [500] * 10
    assert test.targets.bincount().tolist() == [100] * 10
    images = train.inputs["input"]
    assert (images.dtype, images.shape) == (torch.float32, (5000, 1, 28, 28))
    assert train.targets.dtype == torch.int64
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02


def test_the_embedded_subset_is_lossless_and_fixed() -> None:
    _, train, test = open_text("fashion-mnist-mini")
    digest = hashlib.sha256()
    for split in (train, test):
        pixels = (split.inputs["input"].double() * fashion_mnist.STD + fashion_mnist.MEAN) * 255
        digest.update(
            pixels.round().to(torch.uint8).numpy().tobytes() + split.targets.to(torch.uint8).numpy().tobytes()
        )
    assert digest.hexdigest() == "290fbec4577cc6c42b03dcbc4700bfdd040dc408425c729adb37d7a2eff1fed0"


def test_images_of_different_splits_are_different() -> None:
    _, train, test = open_text("fashion-mnist-mini")
    seen = {image.numpy().tobytes() for image in train.inputs["input"]}
    assert len(seen) >= 4990
    assert sum(image.numpy().tobytes() in seen for image in test.inputs["input"]) <= 1


def test_a_balanced_part_and_a_validation_part() -> None:
    _, whole, held = open_text("fashion-mnist-mini?validation=1000")
    _, part, again = open_text("fashion-mnist-mini?train=2000&validation=0.2")
    assert len(whole) == 4000
    assert (len(part), part.targets.bincount().tolist()) == (2000, [200] * 10)
    assert torch.equal(held.inputs["input"], again.inputs["input"])
    assert held.targets.bincount().tolist() == [100] * 10
    trained = {image.numpy().tobytes() for image in whole.inputs["input"]}
    assert sum(image.numpy().tobytes() in trained for image in held.inputs["input"]) <= 1


def test_training_batches_are_augmented_and_test_batches_are_not() -> None:
    plain = open_data("fashion-mnist-mini?train=200", inputs=[IMAGES], classes=10)
    told = "fashion-mnist-mini?train=200&augment=crop,flip,cutout,mixup"
    changed = open_data(told, inputs=[IMAGES], classes=10)
    assert isinstance(changed.train, ImageSplit) and len(changed.train) == 200
    (first, labels), (second, shares) = (
        next(iter(data.train.batches(50, shuffle=True, seed=3, epoch=1))) for data in (plain, changed)
    )
    assert first["input"].shape == second["input"].shape and first["input"].dtype == second["input"].dtype
    assert not torch.equal(first["input"], second["input"])
    assert isinstance(labels, torch.Tensor) and isinstance(shares, torch.Tensor)
    assert shares.shape == (50, 10) and torch.allclose(shares.sum(1), torch.ones(50))
    assert (shares.gather(1, labels[:, None]) > 0).all()
    assert plain.test is not None and changed.test is not None
    for one, other in zip(plain.test.batches(300), changed.test.batches(300), strict=True):
        assert torch.equal(one[0]["input"], other[0]["input"])
        assert torch.equal(one[1], other[1])  # type: ignore[arg-type]


def test_cutout_clears_to_the_mean() -> None:
    data = open_data("fashion-mnist-mini?augment=cutout:10", inputs=[IMAGES], classes=10)
    inputs, _ = next(iter(data.train.batches(64, shuffle=True, seed=0, epoch=0)))
    cleared = (inputs["input"] == 0).sum((1, 2, 3))
    assert (cleared >= 25).all() and (cleared <= 100).all() and (cleared == 100).any()


def test_an_augmentation_that_there_is_not() -> None:
    with pytest.raises(DataError, match="there is no augmentation 'resized-crop' for this data"):
        open_data("fashion-mnist-mini?augment=resized-crop", inputs=[IMAGES], classes=10)


def test_a_folder_is_read(folder: Path) -> None:
    data, train, test = open_text(f"fashion-mnist:{folder}")
    assert (len(train), len(test), data.name) == (40, 20, "fashion-mnist")
    raw = gzip.decompress((folder / f"{NAMES[0]}.gz").read_bytes())[16:]
    pixel = raw[28 * 28 * 3 + 28 * 5 + 7]
    expected = (pixel / 255 - 0.2860) / 0.3530
    assert float(train.inputs["input"][3, 0, 5, 7]) == pytest.approx(expected, abs=1e-6)
    assert train.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_unpacked_files_are_read_too(folder: Path) -> None:
    packed = folder / f"{NAMES[0]}.gz"
    (folder / NAMES[0]).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert len(open_text(f"fashion-mnist:{folder}")[1]) == 40


def test_a_missing_file_says_what_to_fetch(folder: Path) -> None:
    (folder / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is missing\nInstall .* dataset-fashion-mnist"):
        open_text(f"fashion-mnist:{folder}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-20], "cannot be read"),
        (lambda data: b"not packed" + data, "cannot be read"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "bytes unpacked, the published file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1] + b"\x63"), "differs from the published file"),
        (lambda data: data[:40] + b"\xff\xff\xff\xff" + data[44:], "cannot be read|differs|unpacked"),
    ],
)
def test_damaged_files_are_refused(folder: Path, change: object, message: str) -> None:
    path = folder / f"{NAMES[0]}.gz"
    assert callable(change)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        open_text(f"fashion-mnist:{folder}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mnist", "there is no data source 'mnist'\nChoose one of: cifar10, fashion-mnist, fashion-mnist-mini"),
        ("fashion-mnist-mini:/tmp", "has no folder"),
        ("fashion-mnist-mini?part=3", "has no argument 'part'\nIt takes: train=None, validation=None, augment=."),
        ("fashion-mnist-mini?train=few", "train is 'few'"),
        ("fashion-mnist-mini?train=0", "train is 0"),
        ("fashion-mnist-mini?train=0.5", "train is 0.5"),
        ("fashion-mnist-mini?validation=1.0", "validation is 1.0"),
        ("fashion-mnist-mini?validation=true", "validation is True"),
        ("fashion-mnist-mini?train=5010", "5010 samples are asked for, but there are only 500 samples of label 0"),
        ("fashion-mnist-mini?validation=5000", "5001 samples are asked for, but there are only 5000 samples"),
        ("fashion-mnist-mini?train=4500&validation=0.2", "there are only 400 samples of label 0"),
    ],
)
def test_wrong_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_data(text, inputs=[IMAGES])
    assert message in str(caught.value)


def test_a_model_for_other_images_is_refused() -> None:
    larger = ModelInput(name="x", shape=(None, 3, 32, 32), dtype=np.dtype(np.float32))
    with pytest.raises(DataError) as caught:
        open_data("fashion-mnist-mini", inputs=[larger])
    assert "'x' has the size 1 along axis 1, 3 is read" in str(caught.value)
    assert "The data has x: float32[N,1,28,28]; the model reads x: float32[N,3,32,32]." in str(caught.value)


def test_a_model_with_two_inputs_is_refused() -> None:
    with pytest.raises(DataError, match=r"has one array of images, the model reads input: .*; input: "):
        open_data("fashion-mnist-mini", inputs=[IMAGES, IMAGES])


def test_a_model_with_too_few_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"the model tells 5 classes apart \(2500 such labels\)\nLabels go from 0 to 4"):
        open_data("fashion-mnist-mini", inputs=[IMAGES], classes=5)


@pytest.mark.parametrize("augment", ["", "?augment=flip,mixup"])
def test_a_model_with_the_channels_last_gets_them_last(augment: str) -> None:
    last = ModelInput(name="input", shape=(None, 28, 28, 1), dtype=np.dtype(np.float32))
    first, second = (open_data(f"fashion-mnist-mini{augment}", inputs=[read], classes=10) for read in (IMAGES, last))
    for name in ("train", "test"):
        batches = (next(iter(getattr(data, name).batches(8, shuffle=name == "train"))) for data in (first, second))
        (one, labels), (other, others) = batches
        assert torch.equal(one["input"].permute(0, 2, 3, 1), other["input"]) and torch.equal(labels, others)
        assert other["input"].is_contiguous()
