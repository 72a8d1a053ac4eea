"""Folders of images, and ImageNet: decoded by worker processes, indexed once, with what can be wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data import Dataset, ModelInput, folder, image_index, imagenet, open_data
from onnx_asgnas.training.data.images import Decoded, ImageSplit
from onnx_asgnas.training.data.selection import stratified
from onnx_asgnas.training.decoding.decode import decode
from onnx_asgnas.training.decoding.jobs import Job, Place
from tests.training.data.publishers import devkit, encoded, tar_of, written
from tests.training.data.test_publishers import contents, md5, reads

COLOURS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (210, 10, 20)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


def by_class(root: Path, each: int = 5, form: str = "PNG") -> Path:
    """A folder of images of one colour each, by the name of the colour."""
    content = {
        f"{name}/{name}{i}.{form.lower()}": encoded(colour, (30 + i, 24), form)
        for name, colour in COLOURS.items()
        for i in range(each)
    }
    written(root, content)
    return root


def colours_of(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """The colour of each image, which must be the same everywhere."""
    assert np.allclose(images, images[:, :, :1, :1], atol=0.05)
    mean, std = (np.array(v) for v in folder.COLOUR)
    return np.asarray((images[:, :, 0, 0] * std + mean) * 255)


def first_batch(data: Dataset, seed: int = 0) -> NDArray[np.float32]:
    inputs, _ = next(data.train.batches(4, shuffle=True, seed=seed))
    return inputs["input"].numpy()


class TestDecoding:
    @pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
    @pytest.mark.parametrize("seed", [None, (1, 2)])
    def test_formats(self, form: str, seed: tuple[int, ...] | None, tmp_path: Path) -> None:
        path = tmp_path / "image"
        path.write_bytes(encoded((200, 100, 50), (90, 40), form))
        answer = decode(Job(places=(Place(str(path), "image"),), channels=3, size=8, margin=1.25, seed=seed))
        assert answer.images is not None
        assert answer.images.shape == (1, 3, 8, 8)
        assert np.abs(answer.images - np.array([200, 100, 50])[:, None, None].astype(int)).max() <= 6

    def test_the_middle_is_taken(self, tmp_path: Path) -> None:
        from PIL import Image

        columns = np.tile(np.arange(60, dtype=np.uint8), (20, 1))
        Image.fromarray(columns).save(tmp_path / "ramp.png")
        places = (Place(str(tmp_path / "ramp.png"), "ramp"),)
        whole = decode(Job(places=places, channels=1, size=20)).images
        inner = decode(Job(places=places, channels=1, size=10, margin=2.0)).images
        assert whole is not None and inner is not None
        assert whole[0, 0, 0].tolist() == list(range(20, 40))
        assert inner[0, 0, 0].tolist() == list(range(25, 35))

    def test_a_seed_gives_the_same_parts(self, tmp_path: Path) -> None:
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise.png")
        place = Place(str(tmp_path / "noise.png"), "noise")

        def parts(*seed: int) -> NDArray[np.uint8]:
            found = decode(Job(places=(place, place), channels=3, size=16, seed=seed)).images
            assert found is not None
            return found

        assert np.array_equal(parts(0, 1), parts(0, 1))
        assert not np.array_equal(parts(0, 1), parts(0, 2))
        assert not np.array_equal(*parts(0, 1))

    @pytest.mark.parametrize("size", [(2000, 1500), (1501, 999), (17, 400), (1, 1)])
    def test_large_and_narrow_images(self, size: tuple[int, int], tmp_path: Path) -> None:
        (tmp_path / "image.jpg").write_bytes(encoded((9, 99, 200), size))
        place = Place(str(tmp_path / "image.jpg"), "image")
        for seed in (None, *((i,) for i in range(20))):
            answer = decode(Job(places=(place,), channels=3, size=32, margin=256 / 224, seed=seed))
            assert answer.images is not None, answer.problem
            assert np.abs(answer.images[0].mean(axis=(1, 2)) - (9, 99, 200)).max() < 4


class TestStratified:
    @given(labels=st.lists(st.integers(0, 3), min_size=12, max_size=60), seed=st.integers(0, 5))
    def test_each_label_is_held_out_in_part(self, labels: list[int], seed: int) -> None:
        targets = np.array([*labels, *(list(range(4)) * 2)])
        kept, held = stratified(targets, 0.25, seed)
        assert sorted([*kept, *held]) == list(range(len(targets)))
        for label in range(4):
            whole = int((targets == label).sum())
            assert int((targets[held] == label).sum()) == max(1, round(0.25 * whole))
        assert np.array_equal(stratified(targets, 0.25, seed)[1], held)

    def test_seeds_differ(self) -> None:
        targets = np.arange(60) % 3
        assert not np.array_equal(stratified(targets, 0.2, 0)[1], stratified(targets, 0.2, 1)[1])


class TestFolder:
    def test_images_by_class(self, tmp_path: Path) -> None:
        data = open_data(f"folder:{by_class(tmp_path)}?validation=0.2", inputs=[reads(12)], classes=3)
        assert data.test is not None
        assert (len(data.train), len(data.test), data.classes) == (12, 3, 3)
        for images, labels in contents(data):
            wanted = np.array([list(COLOURS.values())[label] for label in labels])
            assert np.abs(colours_of(images) - wanted).max() < 1

    def test_the_part_held_out_follows_the_seed(self, tmp_path: Path) -> None:
        by_class(tmp_path, each=20)

        def held(seed: int) -> list[int]:
            split = open_data(f"folder:{tmp_path}?seed={seed}", inputs=[reads(8)], classes=3).test
            assert isinstance(split, ImageSplit)
            return split.chosen.tolist()

        assert held(0) == held(0) != held(1)
        assert len(held(0)) == 6

    @pytest.mark.parametrize("name", ["test", "val"])
    def test_a_folder_of_test_images_is_used(self, name: str, tmp_path: Path) -> None:
        by_class(tmp_path / "train")
        by_class(tmp_path / name, each=2)
        data = open_data(f"folder:{tmp_path}", inputs=[reads(8)], classes=3)
        assert data.test is not None
        assert (len(data.train), len(data.test)) == (15, 6)
        held = open_data(f"folder:{tmp_path}?validation=0.4", inputs=[reads(8)], classes=3)
        assert held.test is not None
        assert (len(held.train), len(held.test)) == (9, 6)

    def test_a_grey_model_gets_brightness_and_a_size_that_it_leaves_open(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        by_class(tmp_path)
        open_input = ModelInput(name="input", shape=(None, 1, None, None), dtype=np.dtype(np.float32))
        with caplog.at_level(logging.WARNING):
            data = open_data(f"folder:{tmp_path}?size=9&mean=0&std=1", inputs=[open_input], classes=3)
        images, labels = contents(data)[0]
        assert images.shape == (12, 1, 9, 9)
        red, green, blue = np.array([COLOURS[n] for n in sorted(COLOURS)]).T
        wanted = (0.299 * red + 0.587 * green + 0.114 * blue)[labels] / 255
        assert np.allclose(images[:, 0, 4, 4], wanted, atol=0.01)
        assert "15 of 15 images are coloured and get their brightness" in caplog.text

    @pytest.mark.parametrize("augment", ["", "?augment=resized-crop,flip"])
    def test_a_model_with_the_channels_last_gets_them_last(self, augment: str, tmp_path: Path) -> None:
        source = f"folder:{by_class(tmp_path)}{augment}"
        last = ModelInput(name="input", shape=(None, 8, 8, 3), dtype=np.dtype(np.float32))
        first, second = (open_data(source, inputs=[read], classes=3) for read in (reads(8), last))
        for one, two in zip(contents(first), contents(second), strict=True):
            assert np.array_equal(one[0].transpose(0, 2, 3, 1), two[0])

    def test_grey_images_among_colour_ones_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        by_class(tmp_path)
        (tmp_path / "red" / "a-grey.png").write_bytes(encoded(128, mode="L", form="PNG"))
        (tmp_path / "red" / "cmyk.jpg").write_bytes(encoded((0, 0, 0, 0), mode="CMYK"))
        with caplog.at_level(logging.WARNING):
            open_data(f"folder:{tmp_path}", inputs=[reads(8)], classes=3)
        (record,) = caplog.records
        assert "1 of 17 images are grey and get three equal channels" in record.getMessage()
        assert "red/a-grey.png" in record.getMessage()

    def test_own_mean_and_deviation(self, tmp_path: Path) -> None:
        by_class(tmp_path)
        data = open_data(f"folder:{tmp_path}?mean=0.5,0.4,0.3&std=0.2", inputs=[reads(8)], classes=3)
        images, labels = contents(data)[0]
        blue = images[labels == 0][0][:, 0, 0]
        assert np.allclose(blue, (np.array(COLOURS["blue"]) / 255 - (0.5, 0.4, 0.3)) / 0.2, atol=1e-5)

    @pytest.mark.parametrize("text", ["augment=resized-crop,flip", "augment=resized-crop,cutout&workers=2"])
    def test_random_parts_are_decoded_anew_to_the_same_bits(self, text: str, tmp_path: Path) -> None:
        data = open_data(f"folder:{by_class(tmp_path)}?{text}", inputs=[reads(12)], classes=3)
        assert isinstance(data.train, ImageSplit)
        assert isinstance(data.train.source, Decoded)
        one = [inputs["input"] for inputs, _ in data.train.batches(4, shuffle=True, seed=1, epoch=2)]
        two = [inputs["input"] for inputs, _ in data.train.batches(4, shuffle=True, seed=1, epoch=2)]
        assert len(one) == 3
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert np.abs(colours_of(contents(data)[1][0]) - list(COLOURS.values())).max() < 1

    def test_images_that_would_fill_the_memory_are_decoded_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        by_class(tmp_path)
        stored = contents(open_data(f"folder:{tmp_path}", inputs=[reads(12)], classes=3))
        monkeypatch.setattr(folder, "IN_MEMORY", 100)
        data = open_data(f"folder:{tmp_path}", inputs=[reads(12)], classes=3)
        assert isinstance(data.train, ImageSplit)
        assert isinstance(data.train.source, Decoded)
        for one, two in zip(stored, contents(data), strict=True):
            assert np.array_equal(one[0], two[0])

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("red/notes.txt", b"not an image", "red/notes.txt is no image"),
            ("red/short.png", encoded((1, 2, 3), form="PNG")[:60], "red/short.png"),
            ("red/short.jpg", encoded((1, 2, 3), (200, 200))[:700], "red/short.jpg cannot be decoded"),
            ("red/empty.png", b"", "red/empty.png is no image"),
        ],
    )
    def test_a_bad_file_is_named(self, file: str, content: bytes, message: str, tmp_path: Path) -> None:
        by_class(tmp_path)
        written(tmp_path, {file: content, "red/.hidden": b"left out"})
        with pytest.raises(DataError) as caught:
            open_data(f"folder:{tmp_path}", inputs=[reads(8)], classes=3)
        first, fix = str(caught.value).splitlines()
        assert message in first
        assert fix == "Remove or replace the file."

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("folder", "folder names no folder"),
            ("folder:{path}/nowhere", "cannot be read: No such file or directory"),
            ("folder:{path}/red", "has no folder for each class"),
            ("folder:{path}?size=9", "does not fit the model: 'input' has the size 9 along axis 2, 8 is read"),
            ("folder:{path}?mean=0.1,0.2", "mean is (0.1, 0.2) for 3 channels"),
            ("folder:{path}?std=0", "std is 0 for 3 channels"),
            ("folder:{path}?validation=1.5", "validation is 1.5"),
            ("folder:{path}?validation=0.95", "samples of label 0"),
        ],
    )
    def test_wrong_use(self, text: str, message: str, tmp_path: Path) -> None:
        by_class(tmp_path)
        with pytest.raises(DataError) as caught:
            open_data(text.format(path=tmp_path), inputs=[reads(8)], classes=3)
        assert message in str(caught.value)

    def test_classes_must_fit(self, tmp_path: Path) -> None:
        by_class(tmp_path / "train")
        by_class(tmp_path / "test")
        with pytest.raises(DataError, match="has 3 classes, the model tells 2 apart"):
            open_data(f"folder:{tmp_path}", inputs=[reads(8)], classes=2)
        written(tmp_path / "test", {"violet/v.png": encoded((99, 9, 99), form="PNG")})
        with pytest.raises(DataError, match=r"test has a class 'violet', .*train has not \(1 such classes\)"):
            open_data(f"folder:{tmp_path}", inputs=[reads(8)], classes=4)
        (tmp_path / "train" / "yellow").mkdir()
        with pytest.raises(DataError, match="yellow holds no image"):
            open_data(f"folder:{tmp_path}", inputs=[reads(8)], classes=5)


class TestIndex:
    def test_it_is_kept_until_files_come_or_go(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = by_class(tmp_path / "images")
        first = image_index.index_folder(root)
        assert len(list(cache.rglob("*.npz"))) == 1
        monkeypatch.setattr(image_index, "_list_folder", lambda *_: pytest.fail("it is listed again"))
        again = image_index.index_folder(root)
        assert [again[i] for i in range(len(again))] == [first[i] for i in range(len(first))]
        assert again.classes == first.classes
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        written(root, {"red/one-more.png": encoded((1, 1, 1), form="PNG")})
        assert len(image_index.index_folder(root)) == len(first) + 1

    def test_a_damaged_cache_is_passed_over(self, tmp_path: Path, cache: Path) -> None:
        root = by_class(tmp_path / "images")
        image_index.index_folder(root)
        (kept,) = cache.rglob("*.npz")
        kept.write_bytes(b"PK\x03\x04 cut short")
        assert len(image_index.index_folder(root)) == 15

    def test_a_cache_that_cannot_be_written_costs_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert len(image_index.index_folder(by_class(tmp_path / "images"))) == 15


WNIDS = ["n03", "n01", "n02"]
"""In the order in which the development kit numbers them."""
TRUTH = [2, 3, 1, 1]


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three archives, with one colour for each class."""
    colours = dict(zip(sorted(WNIDS), COLOURS.values(), strict=True))
    train = tar_of({f"{w}.tar": tar_of({f"{w}_{i}.JPEG": encoded(colours[w]) for i in range(4)}) for w in WNIDS})
    test = tar_of(
        {f"ILSVRC2012_val_{i:08}.JPEG": encoded(colours[WNIDS[n - 1]]) for i, n in reversed(list(enumerate(TRUTH)))}
    )
    content = dict(zip(imagenet.ARCHIVES, (train, test, devkit(WNIDS, TRUTH)), strict=True))
    for name, data in written(tmp_path, content).items():
        monkeypatch.setitem(imagenet.ARCHIVES, name, md5(data))
    return tmp_path


class TestImageNet:
    def test_archives_are_read_in_place(self, archives: Path) -> None:
        data = open_data(f"imagenet:{archives}?check=true", inputs=[reads(16)], classes=3)
        assert data.test is not None
        assert (len(data.train), len(data.test), data.classes) == (12, 4, 3)
        (train, labels), (test, test_labels) = contents(data)
        wanted = np.array(list(COLOURS.values()))
        assert np.abs(colours_of(train) - wanted[labels]).max() < 4
        assert np.abs(colours_of(test) - wanted[test_labels]).max() < 4
        assert test_labels.tolist() == [0, 1, 2, 2]

    def test_folders_by_class(self, tmp_path: Path) -> None:
        by_class(tmp_path / "train", form="JPEG")
        by_class(tmp_path / "val", each=2, form="JPEG")
        data = open_data(f"imagenet:{tmp_path}?train=6&workers=2", inputs=[reads(16)], classes=1000)
        assert data.test is not None
        assert (len(data.train), len(data.test)) == (6, 6)
        inputs, target = next(data.train.batches(6, shuffle=True))
        assert isinstance(target, torch.Tensor)
        assert sorted(target.tolist()) == [0, 0, 1, 1, 2, 2]
        assert np.abs(colours_of(inputs["input"].numpy()) - np.array(list(COLOURS.values()))[target]).max() < 4

    def test_a_size_that_the_model_leaves_open_is_224(self, archives: Path) -> None:
        wanted = ModelInput(name="input", shape=(None, 3, None, None), dtype=np.dtype(np.float32))
        data = open_data(f"imagenet:{archives}", inputs=[wanted], classes=3)
        assert next(data.train.batches(2))[0]["input"].shape == (2, 3, 224, 224)

    def test_what_is_missing_is_named(self, archives: Path) -> None:
        (archives / imagenet.VALIDATION).unlink()
        with pytest.raises(DataError, match=r"has neither train/ and val/ nor ILSVRC2012_img_val\.tar\nFetch ILSVRC"):
            open_data(f"imagenet:{archives}", inputs=[reads(16)], classes=3)

    @pytest.mark.parametrize(
        ("name", "keep", "text", "message"),
        [
            (imagenet.TRAIN, 700, "", "cut short|cannot be unpacked"),
            (imagenet.TRAIN, -1, "?check=true", "differs from the published file"),
            (imagenet.DEVKIT, 50, "", "differs from the published file"),
            (imagenet.VALIDATION, 3000, "", "cut short|images, and there are 4 labels"),
        ],
    )
    def test_damaged_archives(self, archives: Path, name: str, keep: int, text: str, message: str) -> None:
        (archives / name).write_bytes((archives / name).read_bytes()[:keep])
        with pytest.raises(DataError, match=message):
            open_data(f"imagenet:{archives}{text}", inputs=[reads(16)], classes=3)

    def test_a_devkit_of_another_form(self, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = tar_of({"data/meta.mat": b"none"}, "w:gz")
        (archives / imagenet.DEVKIT).write_bytes(content)
        monkeypatch.setitem(imagenet.ARCHIVES, imagenet.DEVKIT, md5(content))
        with pytest.raises(DataError, match="does not give the labels of the validation images"):
            open_data(f"imagenet:{archives}", inputs=[reads(16)], classes=3)

    def test_a_model_of_too_few_classes(self, archives: Path) -> None:
        with pytest.raises(DataError, match="has 3 classes, the model tells 2 apart"):
            open_data(f"imagenet:{archives}", inputs=[reads(16)], classes=2)


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    from onnx_asgnas.training.decoding.pool import DecodingPool

    (tmp_path / "a.png").write_bytes(encoded((1, 2, 3), form="PNG"))
    pool = DecodingPool(1)
    job = Job(places=(Place(str(tmp_path / "a.png"), "a"),), channels=3, size=4)
    assert next(pool.decode([job])).images is not None
    pool._processes[0].kill()
    pool._processes[0].wait()
    with pytest.raises(DataError, match="a process that decodes images has ended"):
        list(pool.decode([job]))
    pool.close()
    assert next(pool.decode([job])).images is not None
    pool.close()
