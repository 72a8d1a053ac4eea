from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_asgnas.errors import DataError
from onnx_asgnas.evaluation import accuracy, measured
from onnx_asgnas.training.data import ArraySplit
from onnx_asgnas.training.losses import objective
from onnx_asgnas.training.metrics import Judge

Parse = Callable[[str], onnx.ModelProto]

SCORES = np.array([[9, 1, 0], [0, 5, 1], [2, 3, 4], [1, 0, 0], [0, 0, 7]], np.float32)
LABELS = np.array([0, 1, 1, 2, 2])  # three of five


def as_split(scores: np.ndarray, labels: np.ndarray) -> ArraySplit:
    return ArraySplit.from_arrays({"x": scores}, labels)


@pytest.mark.parametrize("batch", ["N", "1", "2", "3", "5", "8"])
@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_counts_every_sample_once_whatever_the_batch(parse: Parse, batch: str, batch_size: int) -> None:
    model = parse(f"g (float[{batch},3] x) => (float[{batch},3] y) {{ y = Identity (x) }}")
    assert accuracy(model, as_split(SCORES, LABELS), batch_size=batch_size) == pytest.approx(3 / 5)


def test_pixels_count_one_by_one(parse: Parse) -> None:
    model = parse("g (float[N,2,2] x) => (float[N,2,2] y) { y = Identity (x) }")
    scores = np.array([[[1, 0], [0, 1]], [[1, 1], [0, 0]]], np.float32)  # classes on axis 1: (0, 1) and (0, 0)
    assert accuracy(model, as_split(scores, np.array([[0, 1], [1, 0]]))) == pytest.approx(3 / 4)


def test_nan_is_wrong(parse: Parse) -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Identity (x) }")
    scores = SCORES.copy()
    scores[0, 0] = np.nan
    assert accuracy(model, as_split(scores, LABELS)) == pytest.approx(2 / 5)


def test_extra_outputs_do_not_matter(parse: Parse) -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y, float[N,3] z) { y = Identity (x) z = Neg (x) }")
    assert accuracy(model, as_split(SCORES, LABELS), threads=1) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.astype(np.float32), "accuracy needs labels, and targets are float32"),
        (np.stack([LABELS, LABELS], 1), r"output 'y' of shape \[5, 3\] gives no class for labels of shape \[5, 2\]"),
    ],
)
def test_targets_that_are_no_labels(parse: Parse, labels: np.ndarray, message: str) -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Identity (x) }")
    with pytest.raises(DataError, match=message):
        accuracy(model, as_split(SCORES, labels))


def test_no_samples(parse: Parse) -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Identity (x) }")
    with pytest.raises(DataError, match="no samples"):
        accuracy(model, as_split(SCORES[:0], LABELS[:0]))


@pytest.mark.parametrize("batch", ["N", "2"])
def test_a_judge_sees_every_sample_of_every_output_once(parse: Parse, batch: str) -> None:
    model = parse(
        f"g (float[{batch},3] x) => (float[{batch},3] y, float[{batch},3] z) {{ y = Identity (x) z = Neg (x) }}"
    )
    goal = objective("y=cross_entropy,z=mse?target=value", outputs=("y", "z"))
    split = ArraySplit.from_arrays({"x": SCORES}, {"label": LABELS, "value": -SCORES + 2})
    found = measured(model, split, Judge.of(goal), batch_size=3).values()
    assert found == {"y.top1": pytest.approx(3 / 5), "z.mse": pytest.approx(4.0)}
