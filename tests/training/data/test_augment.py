"""What happens to the images of a batch, and that it can be had again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.data.augment import Augmentation, parse_augmentation
from onnx_asgnas.training.data.images import Format, ImageSplit, Stored
from tests.training.data.publishers import pixels

FORMAT = Format(name="made up", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), classes=4)


def split(augment: str, count: int = 24, size: int = 16) -> ImageSplit:
    return ImageSplit(
        name="input",
        source=Stored(pixels(count, size)),
        labels=np.arange(count) % 4,
        chosen=np.arange(count),
        table=FORMAT.table,
        classes=4,
        augmentation=parse_augmentation(augment, size),
    )


def random() -> np.random.Generator:
    return np.random.default_rng(3)


def drawn(of: ImageSplit, seed: int = 0, epoch: int = 0) -> list[tuple[NDArray[np.float32], NDArray[np.generic]]]:
    batches = of.batches(8, shuffle=True, seed=seed, epoch=epoch)
    return [(inputs["input"].numpy(), np.asarray(target)) for inputs, target in batches]


@given(most=st.integers(1, 7), size=st.integers(8, 12), count=st.integers(1, 5))
def test_a_crop_shifts_each_image(most: int, size: int, count: int) -> None:
    images = pixels(count, size) | 1  # none of them black
    found = Augmentation(crop=most).pixels(images, random())
    for before, after in zip(images, found, strict=True):
        rows, columns = (np.flatnonzero((after != 0).any(axis=(0, axis))) for axis in (2, 1))
        black_above, black_left = int(rows[0]), int(columns[0])
        down = black_above or int(rows[-1]) + 1 - size
        across = black_left or int(columns[-1]) + 1 - size
        assert max(abs(down), abs(across)) <= most
        moved = np.zeros_like(before)
        inside = [slice(max(0, s), size + min(0, s)) for s in (down, across)]
        source = [slice(max(0, -s), size + min(0, -s)) for s in (down, across)]
        moved[:, inside[0], inside[1]] = before[:, source[0], source[1]]
        assert np.array_equal(after, moved)


def test_every_shift_is_drawn() -> None:
    images = np.full((500, 1, 4, 4), 255, np.uint8)
    found = Augmentation(crop=1).pixels(images, random())
    assert len(np.unique(found, axis=0)) == 9


def test_a_flip_mirrors_some() -> None:
    images = pixels(200, 8)
    found = Augmentation(flip=0.5).pixels(images, random())
    mirrored = (found == images[..., ::-1]).all(axis=(1, 2, 3))
    same = (found == images).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 70 < mirrored.sum() < 130
    assert np.array_equal(Augmentation(flip=1.0).pixels(images, random()), images[..., ::-1])


def test_the_images_that_are_given_are_not_changed() -> None:
    images = pixels(4, 8)
    images.flags.writeable = False
    change = Augmentation(crop=2, flip=0.5)
    assert change.pixels(images, random()).shape == images.shape


def test_cutout_clears_a_square() -> None:
    images = np.ones((300, 2, 12, 12), np.float32)
    Augmentation(cutout=4).images(images, random())
    assert (images[:, 0] == images[:, 1]).all()
    cleared = (images[:, 0] == 0).sum(axis=(1, 2))
    assert cleared.max() == 16
    assert cleared.min() == 4  # in a corner: places -2 to 1 along both axes
    for image in images[:, 0]:
        rows, columns = (np.flatnonzero((image == 0).any(axis=axis)) for axis in (1, 0))
        assert (image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all()


def test_mixup_mixes_images_and_labels_alike() -> None:
    labels = np.arange(6) % 3
    images = np.eye(3, dtype=np.float32)[labels][:, :, None, None] * np.ones((1, 1, 2, 2), np.float32)
    mixed, shares = Augmentation(mixup=1.0).mix(images, labels, 3, random())
    assert shares.dtype == np.float32
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(mixed[:, :, 0, 0], shares)
    assert not np.array_equal(shares, np.eye(3)[labels])


@pytest.mark.parametrize("augment", ["crop", "flip", "cutout", "mixup", "crop,flip,cutout,mixup"])
def test_seed_and_epoch_give_the_same_bits(augment: str) -> None:
    first, again = drawn(split(augment), 1, 2), drawn(split(augment), 1, 2)
    assert all(
        np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
    )
    for other in (drawn(split(augment), 1, 3), drawn(split(augment), 2, 2)):
        assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(first[0][0], drawn(split(""), 1, 2)[0][0])


def test_a_batch_does_not_depend_on_those_before_it() -> None:
    whole = drawn(split("crop,flip,cutout,mixup"))
    ran = split("crop,flip,cutout,mixup").batches(8, shuffle=True)
    next(ran), next(ran)
    inputs, target = next(ran)
    assert np.array_equal(inputs["input"].numpy(), whole[2][0])
    assert np.array_equal(np.asarray(target), whole[2][1])


def test_batches_in_order_are_left_alone() -> None:
    plain, changed = split(""), split("crop,flip,cutout,mixup")
    for (one, two), (three, four) in zip(plain.batches(5), changed.batches(5), strict=True):
        assert np.array_equal(one["input"], three["input"])
        assert np.array_equal(np.asarray(two), np.asarray(four))


def test_a_text_names_what_happens() -> None:
    assert parse_augmentation("", 32) == Augmentation()
    assert parse_augmentation("crop,flip,cutout", 32) == Augmentation(crop=4, flip=0.5, cutout=16)
    assert parse_augmentation("crop:2, mixup:1.0", 32) == Augmentation(crop=2, mixup=1.0)
    assert parse_augmentation("resized-crop", 224).resized_crop
    assert not Augmentation().any
    assert Augmentation(resized_crop=True).any


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "blur",
            "there is no augmentation 'blur' for this data\nChoose from: crop, resized-crop, flip, cutout, mixup.",
        ),
        ("crop:x", "'crop:x' has no number after the colon"),
        ("crop:0", "'crop:0' is out of range\nAs crop:4."),
        ("crop:1.5", "'crop:1.5' is out of range"),
        ("cutout:99", "'cutout:99' is out of range\nAs cutout:16."),
        ("flip:2", "'flip:2' is out of range"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_augmentation(text, 32)
    assert message in str(caught.value)
