"""Batches from the user's own code, checked one by one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from onnx_asgnas.errors import DataError, NonFiniteError
from onnx_asgnas.training.data import Dataset, ModelInput, open_data

POINTS = ModelInput(name="x", shape=(None, 3), dtype=np.dtype(np.float32))


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


def open_stream(text: str) -> Dataset:
    return open_data(f"python:sources_of_batches:{text}", inputs=[POINTS], classes=3)


def test_a_generator_starts_anew_for_every_epoch() -> None:
    data = open_stream("generator?batches=2")
    assert data.test is None
    epochs = [[inputs["x"] for inputs, _ in data.train.batches(9, shuffle=True, epoch=epoch)] for epoch in (0, 1)]
    assert [len(epoch) for epoch in epochs] == [2, 2]
    assert all(torch.equal(a, b) for a, b in zip(*epochs, strict=True))
    assert data.train.steps(9, shuffle=True) == 2
    assert len(data.train) == 8


def test_the_number_of_steps_is_found_before_an_epoch_is_run() -> None:
    assert open_stream("generator?batches=5").train.steps(9, shuffle=True) == 5
    assert open_stream("listed").train.steps(9, shuffle=True) == 2
    assert open_stream("Unsized").train.steps(9, shuffle=True) == 2
    assert len(open_stream("listed").train) == 6


def test_a_callable_is_told_what_it_asks_for() -> None:
    data = open_stream("informed?scale=0.0")
    calls = sys.modules["sources_of_batches"].calls
    calls.clear()
    (batch,) = data.train.batches(5, shuffle=True, seed=7, epoch=2)
    assert calls == [{"split": "train", "batch_size": 5, "shuffle": True, "seed": 7, "epoch": 2}]
    assert len(batch[1]) == 5
    assert not batch[0]["x"].any()
    assert data.test is not None
    list(data.test.batches(6))
    assert calls[-1]["split"] == "test"


def test_an_iterable_is_made_once_and_run_through_again() -> None:
    data = open_stream("Counting")
    before = sys.modules["sources_of_batches"].Counting.made
    for epoch in range(3):
        assert len(list(data.train.batches(4, shuffle=True, epoch=epoch))) == 2
    assert sys.modules["sources_of_batches"].Counting.made == before + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("number", "is of type int, not a callable"),
        ("not_iterable", "gives an object of type int, which cannot be iterated"),
        ("nothing", "gives no batch for train"),
        ("absent", "has no 'absent'"),
        ("generator?size=3", "has no argument 'size'\nIt takes: batches=3."),
        ("broken_at_once", "fails: RuntimeError: no files"),
        (
            "tensors",
            "batch 0 of python:sources_of_batches:tensors (train) is of type Tensor, not a pair (inputs, target)",
        ),
        ("samples", "'x' has 1 axes, 2 are read\nThe data has x: float32[N]; the model reads x: float32[N,3]."),
        ("wrong_labels", "has the label 9 in 'label' at index [3]"),
    ],
)
def test_what_is_amiss_shows_when_it_is_opened(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_stream(text)
    assert message in str(caught.value)


def test_what_comes_later_is_checked_when_it_comes() -> None:
    with pytest.raises(NonFiniteError, match=r"batch 1 of .*late_nan \(train\) has nan in 'x' at index \[1, 2\]"):
        list(open_stream("late_nan").train.batches(4))
    with pytest.raises(DataError, match="fails: RuntimeError: disk gone"):
        list(open_stream("broken").train.batches(4))


def test_a_callable_must_be_named() -> None:
    with pytest.raises(DataError, match=r"Write python:package.module:callable"):
        open_data("python:", inputs=[POINTS])
