"""Splits in memory, parts of them, and what does not fit the model."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_asgnas import models
from onnx_asgnas.errors import DataError, NonFiniteError
from onnx_asgnas.training.data import ArraySplit, Dataset, ModelInput, model_inputs, open_data, register
from onnx_asgnas.training.data.selection import balanced_subset, choose_parts

POINTS = ModelInput(name="x", shape=(None, 3), dtype=np.dtype(np.float32))
IDS = ModelInput(name="ids", shape=(None, None), dtype=np.dtype(np.int64))


def numbered(count: int) -> ArraySplit:
    """A split whose samples are their own numbers."""
    numbers = np.arange(count)
    return ArraySplit.from_arrays({"x": numbers[:, None].astype(np.float32)}, numbers)


def save(path: Path, **arrays: NDArray[np.generic]) -> str:
    np.savez(path / "data.npz", **arrays)
    return f"npz:{path / 'data.npz'}"


def points(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)


def in_memory(split: object) -> ArraySplit:
    assert isinstance(split, ArraySplit)
    return split


class TestBatches:
    @given(count=st.integers(1, 50), batch=st.integers(1, 60))
    def test_in_order_every_sample_comes_once(self, count: int, batch: int) -> None:
        batches = list(numbered(count).batches(batch))
        assert torch.cat([targets for _, targets in batches]).tolist() == list(range(count))
        assert all(torch.equal(inputs["x"][:, 0].long(), targets) for inputs, targets in batches)
        assert numbered(count).steps(batch, shuffle=False) == len(batches)

    @given(count=st.integers(1, 50), batch=st.integers(1, 60), seed=st.integers(0, 2**32), epoch=st.integers(0, 9))
    def test_shuffled_batches_are_full_and_distinct(self, count: int, batch: int, seed: int, epoch: int) -> None:
        split = numbered(count)
        batches = list(split.batches(batch, shuffle=True, seed=seed, epoch=epoch))
        assert split.steps(batch, shuffle=True) == len(batches) == max(count // batch, 1)
        assert {len(targets) for _, targets in batches} == {min(batch, count)}
        seen = torch.cat([targets for _, targets in batches]).tolist()
        assert len(set(seen)) == len(seen)
        assert all(torch.equal(inputs["x"][:, 0].long(), targets) for inputs, targets in batches)

    def test_the_order_depends_on_seed_and_epoch_alone(self) -> None:
        def order(seed: int, epoch: int) -> list[int]:
            return torch.cat([t for _, t in numbered(64).batches(8, shuffle=True, seed=seed, epoch=epoch)]).tolist()

        orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
        assert orders == [order(seed, epoch) for seed in range(3) for epoch in range(3)]
        assert len({tuple(o) for o in orders}) == 9

    def test_an_epoch_can_be_started_at_any_time(self) -> None:
        split = numbered(64)
        first = split.batches(8, shuffle=True, seed=1, epoch=0)
        next(first)
        assert next(split.batches(8))[1].tolist() == list(range(8))
        assert len(list(first)) == 7

    def test_batches_in_order_share_memory(self) -> None:
        split = numbered(10)
        inputs, _ = next(split.batches(4))
        assert inputs["x"].data_ptr() == split.inputs["x"].data_ptr()
        assert inputs["x"].is_contiguous()


class TestParts:
    @given(
        labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array),
        fraction=st.floats(0, 1),
        data=st.data(),
    )
    def test_a_balanced_subset(self, labels: NDArray[np.int64], fraction: float, data: st.DataObject) -> None:
        present, number = np.unique(labels, return_counts=True)
        count = data.draw(st.integers(0, int(number.min()) * len(present)))
        chosen = balanced_subset(labels, count)
        assert len(chosen) == count
        assert np.array_equal(chosen, np.unique(chosen))
        per_label = np.array([(labels[chosen] == label).sum() for label in present])
        assert per_label.max() - per_label.min() <= 1
        assert np.array_equal(chosen, balanced_subset(labels, count))

    def test_targets_that_are_no_labels_are_drawn_from_all(self) -> None:
        chosen = balanced_subset(np.linspace(0, 1, 20), 5)
        assert len(set(chosen.tolist())) == 5
        with pytest.raises(DataError, match="21 samples are asked for, but there are only 20"):
            balanced_subset(np.linspace(0, 1, 20), 21)

    @given(count=st.integers(10, 60), train=st.integers(1, 5), validation=st.integers(1, 5))
    def test_parts_are_disjoint(self, count: int, train: int, validation: int) -> None:
        targets = np.linspace(0, 1, count)
        kept, held = choose_parts(targets, train=train, validation=validation)
        assert isinstance(kept, np.ndarray)
        assert held is not None
        assert (len(kept), len(held)) == (train, validation)
        assert not set(kept.tolist()) & set(held.tolist())

    def test_without_a_wish_all_samples_train(self) -> None:
        assert choose_parts(np.arange(3), train=None, validation=None) == (slice(None), None)


class TestModelInputs:
    def test_they_are_read_from_the_model(self) -> None:
        (found,) = model_inputs(models.build("stackedunets", width=1))
        assert (found.name, found.shape, found.dtype) == ("input", (None, 1, 28, 28), np.float32)
        assert str(found) == "input: float32[N,1,28,28]"

    def test_initializers_are_none(self) -> None:
        model = models.build("demosupnet", width=1)
        weight = model.graph.initializer[0]
        model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
        assert [i.name for i in model_inputs(model)] == ["input"]


class TestNpz:
    def test_test_arrays_are_the_test_data(self, tmp_path: Path) -> None:
        text = save(tmp_path, x=points(20), label=np.arange(20) % 4, x_test=points(5), label_test=np.arange(5) % 4)
        data = open_data(text, inputs=[POINTS], classes=4)
        assert (data.name, data.classes, len(data.train)) == ("data.npz", 4, 20)
        assert torch.equal(in_memory(data.test).inputs["x"], torch.from_numpy(points(5)))

    def test_without_test_arrays_a_tenth_is_held_out_and_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = save(tmp_path, x=points(40), label=np.arange(40) % 4, note=np.zeros(3))
        with caplog.at_level(logging.INFO, logger="onnx_asgnas"):
            data = open_data(text, inputs=[POINTS], classes=4)
        assert (len(data.train), len(in_memory(data.test))) == (36, 4)
        assert in_memory(data.test).targets.bincount().tolist() == [1, 1, 1, 1]
        assert "a tenth of its samples is held out" in caplog.text
        assert "the model does not read note" in caplog.text

    def test_parts_can_be_asked_for(self, tmp_path: Path) -> None:
        text = save(tmp_path, x=points(40), label=np.arange(40) % 4)
        data = open_data(f"{text}?train=8&validation=12", inputs=[POINTS])
        assert (len(data.train), len(in_memory(data.test))) == (8, 12)

    def test_types_become_those_of_the_model(self, tmp_path: Path) -> None:
        ids = np.arange(12, dtype=np.int32).reshape(6, 2)
        text = save(tmp_path, x=points(6).astype(np.float64), ids=ids, label=np.linspace(0, 1, 6), unused=np.zeros(2))
        train = in_memory(open_data(text, inputs=[POINTS, IDS]).train)
        assert train.inputs["x"].dtype == torch.float32
        assert train.inputs["ids"].dtype == torch.int64
        assert train.targets.dtype == torch.float32

    def test_ignored_labels_are_allowed(self, tmp_path: Path) -> None:
        text = save(tmp_path, x=points(20), label=np.where(np.arange(20) < 10, -100, 1))
        assert len(open_data(text, inputs=[POINTS], classes=2).train) == 18

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": points(4)}, "has no array 'label'\nIt has: x: float32[N,3]. The model reads x: float32[N,3]; "),
            ({"image": points(4), "label": np.arange(4)}, "there is no array 'x'\nThe data has image: float32[N,3]"),
            ({"x": points(4)[0], "label": np.arange(3)}, "'x' has 1 axes, 2 are read"),
            ({"x": points(4)[:, :2], "label": np.arange(4)}, "'x' has the size 2 along axis 1, 3 is read"),
            ({"x": points(4) * 1j, "label": np.arange(4)}, "'x' is complex64, float32 is read"),
            ({"x": points(4), "label": np.arange(3)}, "has 4 samples, but 'label' has 3 values"),
            ({"x": points(4), "label": np.array(3)}, "has 4 samples, but 'label' has one value"),
            ({"x": points(4), "label": np.arange(4.0)}, "'label' of {path} has the type float64, labels are integers"),
            ({"x": points(4), "label": np.array(list("abcd"))}, "'label' of {path} has the type <U1"),
            ({"x": points(4), "label": np.array([0, 1, 5, 7])}, "has the label 5 in 'label' at index [2]"),
            ({"x": points(4), "label": np.array([0, -1, 1, 2])}, "has the label -1 in 'label' at index [1]"),
            ({"x": points(0), "label": np.arange(0)}, "holds no samples"),
            ({"x": points(4), "label": np.arange(4), "x_test": points(2)}, "but not 'label_test'"),
            (
                {"x": points(4), "label": np.arange(4), "x_test": points(2), "label_test": np.array([0, 9])},
                "the test data of {path} has the label 9 in 'label_test' at index [1]",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, arrays: dict[str, NDArray[np.generic]], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError) as caught:
            open_data(save(tmp_path, **arrays), inputs=[POINTS], classes=4)
        expected = message.format(path=tmp_path / "data.npz").replace("<U1", np.dtype("<U1").name)
        assert expected in str(caught.value)

    def test_arrays_of_different_lengths_are_refused(self, tmp_path: Path) -> None:
        text = save(tmp_path, x=points(4), ids=np.zeros((3, 2), np.int64), label=np.arange(4))
        with pytest.raises(DataError, match=r"differ in length: \{'x': 4, 'ids': 3\}"):
            open_data(text, inputs=[POINTS, IDS])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_is_refused_with_its_place(self, value: float, tmp_path: Path) -> None:
        array = points(4)
        array[2, 1] = value
        with pytest.raises(NonFiniteError, match=r"has (nan|inf) in 'x' at index \[2, 1\]") as caught:
            open_data(save(tmp_path, x=array, label=np.arange(4)), inputs=[POINTS])
        assert caught.value.fields["index"] == (2, 1)

    def test_nan_in_targets_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(NonFiniteError, match=r"in 'label' at index \[1\]"):
            open_data(save(tmp_path, x=points(2), label=np.array([0, np.nan])), inputs=[POINTS])

    @pytest.mark.parametrize(
        ("content", "message"),
        [(None, "does not exist"), (b"", "is not an .npz file"), (b"PK\x03\x04 cut short", "is not an .npz file")],
    )
    def test_files_that_cannot_be_read(self, content: bytes | None, message: str, tmp_path: Path) -> None:
        path = tmp_path / "data.npz"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_data(f"npz:{path}", inputs=[POINTS])

    def test_a_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        save(tmp_path, x=points(100), label=np.arange(100))
        path = tmp_path / "data.npz"
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(DataError, match=r"is not an \.npz file"):
            open_data(f"npz:{path}", inputs=[POINTS])

    def test_pickles_are_never_loaded(self, tmp_path: Path) -> None:
        text = save(tmp_path, x=points(2), label=np.array([{}, {}], dtype=object))
        with pytest.raises(DataError, match=r"is not an \.npz file of plain arrays"):
            open_data(text, inputs=[POINTS])

    def test_a_single_array_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "data.npy", points(2))
        with pytest.raises(DataError, match="is a single array"):
            open_data(f"npz:{tmp_path / 'data.npy'}", inputs=[POINTS])

    def test_a_file_must_be_named(self) -> None:
        with pytest.raises(DataError, match="Write npz:FILE"):
            open_data("npz", inputs=[POINTS])


def test_a_source_is_registered_once() -> None:
    def another(*_: object) -> Dataset:
        raise NotImplementedError

    with pytest.raises(ValueError, match="two data sources are called 'npz'"):
        register("npz")(another)
