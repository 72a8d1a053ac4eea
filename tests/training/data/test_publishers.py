"""CIFAR-10, SVHN and STL-10 from files in their publishers' forms: right, missing, damaged."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data import Dataset, ModelInput, cifar, open_data, sources, stl10, svhn
from onnx_asgnas.training.data.images import Format
from tests.training.data import publishers
from tests.training.data.publishers import pixels, tar_of


def reads(size: int = 32, channels: int = 3) -> ModelInput:
    return ModelInput(name="input", shape=(None, channels, size, size), dtype=np.dtype(np.float32))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def know(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, files: Mapping[str, bytes], tar: bytes = b""
) -> None:
    """Let these be the published files."""
    release = replace(
        getattr(module, name), files={k: md5(v) for k, v in files.items()}, archive_md5=md5(tar) if tar else "0"
    )
    monkeypatch.setattr(module, name, release)


def contents(data: Dataset) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Images and labels of the two splits, in order."""
    found = []
    for split in (data.train, data.test):
        assert split is not None
        batches = list(split.batches(7))
        images = torch.cat([inputs["input"] for inputs, _ in batches]).numpy()
        found.append((images, torch.cat([target for _, target in batches]).numpy()))  # type: ignore[misc]
    return found


def normalised(images: NDArray[np.uint8], form: Format) -> NDArray[np.float64]:
    mean, std = (np.array(v)[:, None, None] for v in (form.mean, form.std))
    return np.asarray((images / 255 - mean) / std)


IMAGES = [pixels(8, 32, seed) for seed in range(6)]
LABELS = [[(seed + i) % 10 for i in range(8)] for seed in range(6)]


@pytest.fixture(params=["python", "binary"])
def cifar_folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the six files of one form, of eight images each."""
    monkeypatch.setattr(cifar, "SAMPLES", 8)
    write = {"python": publishers.cifar_python, "binary": publishers.cifar_binary}[request.param]
    files = write(tmp_path, IMAGES, LABELS)
    if request.param == "python":
        know(monkeypatch, cifar, "PYTHON", files)
    return tmp_path


def test_the_registry_names_the_sources() -> None:
    assert {"cifar10", "svhn", "stl10", "imagenet", "folder"} <= set(sources())


class TestCifar:
    def test_both_forms_give_the_images(self, cifar_folder: Path) -> None:
        data = open_data(f"cifar10:{cifar_folder}", inputs=[reads()], classes=10)
        (train, labels), (test, test_labels) = contents(data)
        assert (data.name, data.classes, len(data.train), train.dtype) == ("cifar10", 10, 40, np.float32)
        assert np.allclose(train, normalised(np.concatenate(IMAGES[:5]), cifar.FORMAT), atol=1e-6)
        assert labels.tolist() == np.concatenate(LABELS[:5]).tolist()
        assert np.allclose(test, normalised(IMAGES[5], cifar.FORMAT), atol=1e-6)
        assert test_labels.tolist() == LABELS[5]

    def test_the_folder_itself_may_be_given(self, cifar_folder: Path) -> None:
        (inner,) = cifar_folder.iterdir()
        assert len(open_data(f"cifar10:{inner}", inputs=[reads()], classes=10).train) == 40

    @pytest.mark.parametrize("form", ["python", "binary"])
    def test_archives_are_read_as_they_are(self, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cifar, "SAMPLES", 8)
        write, name = {
            "python": (publishers.cifar_python, "PYTHON"),
            "binary": (publishers.cifar_binary, "BINARY"),
        }[form]
        files = write(tmp_path / "unpacked", IMAGES, LABELS)
        release = getattr(cifar, name)
        tar = tar_of({f"{release.folder}/{n}": data for n, data in files.items()}, "w:gz")
        (tmp_path / release.archive).write_bytes(tar)
        know(monkeypatch, cifar, name, files, tar)
        for location in (tmp_path, tmp_path / release.archive):
            assert len(open_data(f"cifar10:{location}", inputs=[reads()], classes=10).train) == 40
        (tmp_path / release.archive).write_bytes(tar[:-9])
        with pytest.raises(DataError, match=r"differs from the published file \(MD5"):
            open_data(f"cifar10:{tmp_path}", inputs=[reads()], classes=10)

    def test_parts_and_augmentation_can_be_asked_for(self, cifar_folder: Path) -> None:
        text = f"cifar10:{cifar_folder}?train=20&validation=10&augment=crop,flip,cutout"
        data = open_data(text, inputs=[reads()], classes=10)
        assert data.test is not None
        assert (len(data.train), len(data.test)) == (20, 10)
        shuffled = next(data.train.batches(20, shuffle=True))[0]["input"]
        assert (shuffled == 0).any()  # cut out
        held = contents(data)[1][0]
        everything = normalised(np.concatenate(IMAGES[:5]), cifar.FORMAT)
        assert all((np.abs(everything - image).max(axis=(1, 2, 3)) < 1e-5).any() for image in held)

    def test_mixup_gives_shares_of_classes(self, cifar_folder: Path) -> None:
        data = open_data(f"cifar10:{cifar_folder}?augment=mixup", inputs=[reads()], classes=12)
        target = next(data.train.batches(8, shuffle=True))[1]
        assert isinstance(target, torch.Tensor)
        assert (target.shape, target.dtype) == ((8, 12), torch.float32)
        assert torch.allclose(target.sum(1), torch.ones(8))

    def test_a_changed_file_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        know(monkeypatch, cifar, "PYTHON", publishers.cifar_python(tmp_path, IMAGES, LABELS))
        path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(DataError, match=r"data_batch_3 differs from the published file \(MD5"):
            open_data(f"cifar10:{tmp_path}", inputs=[reads()], classes=10)

    def test_a_binary_file_cut_short_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cifar, "SAMPLES", 8)
        publishers.cifar_binary(tmp_path, IMAGES, LABELS)
        path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(DataError, match=r"test_batch\.bin holds 24,579 bytes, the published file 24,584"):
            open_data(f"cifar10:{tmp_path}", inputs=[reads()], classes=10)

    def test_a_missing_file_is_named_with_where_to_get_it(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            open_data(f"cifar10:{tmp_path}", inputs=[reads()], classes=10)
        first, second = str(caught.value).splitlines()
        assert first.endswith("cifar-10-batches-py/data_batch_1 is missing")
        assert "Fetch cifar-10-python.tar.gz" in second
        assert "https://www.cs.toronto.edu/~kriz/cifar.html" in second
        assert "give cifar10:FOLDER" in second

    def test_a_folder_must_be_named(self) -> None:
        with pytest.raises(DataError, match="Write cifar10:FOLDER"):
            open_data("cifar10", inputs=[reads()])

    def test_a_pickle_runs_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Evil:
            def __reduce__(self) -> tuple[object, ...]:
                return os.mkdir, (str(tmp_path / "run"),)

        content = dict.fromkeys(cifar.PYTHON.files, pickle.dumps(Evil(), protocol=2))
        know(monkeypatch, cifar, "PYTHON", publishers.written(tmp_path / "cifar-10-batches-py", content))
        with pytest.raises(DataError, match=r"data_batch_1 is no batch of CIFAR-10: it asks for posix\.mkdir"):
            open_data(f"cifar10:{tmp_path}", inputs=[reads()])
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (reads(28), "the training data of cifar10 does not fit the model: 'input' has the size 32 along axis 2"),
            (reads(32, 1), "'input' has the size 3 along axis 1, 1 is read"),
            (ModelInput(name="x", shape=(None, 3), dtype=np.dtype(np.float32)), "cifar10 has one array of images"),
        ],
    )
    def test_another_model_is_refused(self, cifar_folder: Path, wanted: ModelInput, message: str) -> None:
        with pytest.raises(DataError, match=r"does not fit the model|one array of images") as caught:
            open_data(f"cifar10:{cifar_folder}", inputs=[wanted], classes=10)
        assert message in str(caught.value)

    def test_a_model_of_too_few_classes_is_refused(self, cifar_folder: Path) -> None:
        with pytest.raises(DataError, match="the model tells 5 classes apart"):
            open_data(f"cifar10:{cifar_folder}", inputs=[reads()], classes=5)


class TestSvhn:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        parts = {
            name: publishers.svhn(tmp_path, f"{name}_32x32.mat", pixels(12, 32), [*range(10), 0, 5])
            for name in ("train", "test", "extra")
        }
        know(monkeypatch, svhn, "RELEASE", {f"{n}_32x32.mat": parts[n] for n in ("train", "test")})
        know(monkeypatch, svhn, "EXTRA", {"extra_32x32.mat": parts["extra"]})
        return tmp_path

    def test_images_and_digits(self, folder: Path) -> None:
        (train, labels), (_, test_labels) = contents(open_data(f"svhn:{folder}", inputs=[reads()], classes=10))
        assert np.allclose(train, normalised(pixels(12, 32), svhn.FORMAT), atol=1e-6)
        assert labels.tolist() == test_labels.tolist() == [*range(10), 0, 5]

    def test_the_extra_images_train_too(self, folder: Path) -> None:
        data = open_data(f"svhn:{folder}?extra=true", inputs=[reads()], classes=10)
        assert data.test is not None
        assert (len(data.train), len(data.test)) == (24, 12)

    @pytest.mark.parametrize("content", [b"no MATLAB file", b""])
    def test_another_file_is_refused(self, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "train_32x32.mat").write_bytes(content)
        know(
            monkeypatch,
            svhn,
            "RELEASE",
            {"train_32x32.mat": content, "test_32x32.mat": (folder / "test_32x32.mat").read_bytes()},
        )
        with pytest.raises(DataError, match=r"train_32x32\.mat is no MATLAB file with X and y"):
            open_data(f"svhn:{folder}", inputs=[reads()], classes=10)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"train_32x32\.mat is missing\nFetch train_32x32\.mat, test_32x32\.mat from"
        ):
            open_data(f"svhn:{tmp_path}", inputs=[reads()])


class TestStl10:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        files = publishers.stl10(tmp_path, "train", pixels(6, 96), [0, 1, 2, 3, 4, 9])
        files |= publishers.stl10(tmp_path, "test", pixels(3, 96, 1), [5, 6, 7])
        know(monkeypatch, stl10, "RELEASE", files)
        return tmp_path

    def test_images_are_turned_and_labels_start_at_zero(self, folder: Path) -> None:
        (train, labels), (_, test_labels) = contents(open_data(f"stl10:{folder}", inputs=[reads(96)], classes=10))
        assert np.allclose(train, normalised(pixels(6, 96), stl10.FORMAT), atol=1e-6)
        assert (labels.tolist(), test_labels.tolist()) == ([0, 1, 2, 3, 4, 9], [5, 6, 7])

    @pytest.mark.parametrize("text", ["", "?size=32"])
    def test_images_are_averaged_to_what_the_model_reads(self, folder: Path, text: str) -> None:
        (train, _), _ = contents(open_data(f"stl10:{folder}{text}", inputs=[reads(32)], classes=10))
        means = pixels(6, 96).reshape(6, 3, 32, 3, 32, 3).mean(axis=(3, 5))
        assert np.allclose(train, normalised(np.rint(means).astype(np.uint8), stl10.FORMAT), atol=1e-6)

    def test_other_sizes_are_refused(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"images of 96 pixels cannot be averaged to 28\nChoose 24, 32, 48 or 96"):
            open_data(f"stl10:{folder}", inputs=[reads(28)], classes=10)

    def test_a_file_cut_short_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = folder / "stl10_binary" / "train_X.bin"
        path.write_bytes(path.read_bytes()[:-10])
        files = {p.name: p.read_bytes() for p in path.parent.iterdir()}
        know(monkeypatch, stl10, "RELEASE", files)
        with pytest.raises(DataError, match=r"train_X\.bin holds 165,878 bytes, 6 labels need 165,888"):
            open_data(f"stl10:{folder}", inputs=[reads(96)], classes=10)
