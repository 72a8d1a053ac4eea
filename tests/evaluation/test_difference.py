from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from onnx_asgnas.evaluation.difference import explain_mismatch, has_nan, is_all_zero, relative_difference

NAN, INF = math.nan, math.inf


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        (floats(1, -4), floats(1, -4), 0.0),
        (floats(1, -4), floats(2, -4), 0.25),
        (floats(0, 0), floats(0, -0.0), 0.0),
        (floats(0, 0), floats(0, 1e-30), INF),
        (floats(1, 0), floats(0, 0), 1.0),
        (floats(1, NAN), floats(1, NAN), INF),
        (floats(1, 2), floats(1, NAN), INF),
        (floats(-INF, 2), floats(-INF, 1), 0.5),
        (floats(-INF, 2), floats(INF, 2), INF),
        (floats(INF, 2), floats(7, 2), INF),
        (floats(1, 2), floats(1, 2, 3), INF),
        (floats(1, 2), np.array([1.0, 2.0]), INF),
        (floats(), floats(), 0.0),
        (np.array([3, 4]), np.array([3, 5]), 0.25),
        (np.array([True, False]), np.array([True, True]), 1.0),
        (np.array([200], np.uint8), np.array([201], np.uint8), 1 / 200),
        (np.array(["a", "b"]), np.array(["a", "b"]), 0.0),
        (np.array(["a", "b"]), np.array(["a", "c"]), INF),
        ([floats(1), floats(2)], [floats(1), floats(1)], 0.5),
        ([floats(1), floats(2)], [floats(1)], INF),
        ({"a": floats(4)}, {"a": floats(3)}, 0.25),
        ({"a": floats(4)}, {"b": floats(4)}, INF),
    ],
)
def test_by_hand(reference: Any, other: Any, expected: float) -> None:
    assert relative_difference(reference, other) == expected


def test_half_precision_is_compared_in_float64() -> None:
    one = np.array([60000.0], np.float16)
    assert relative_difference(one, -one) == 2.0


def test_a_mismatch_is_told() -> None:
    assert explain_mismatch(floats(1), floats(2)) == ""
    assert explain_mismatch(np.zeros((2, 10), np.float32), np.zeros((2, 9), np.float32)) == (
        "float32[2, 10] against float32[2, 9]"
    )
    assert explain_mismatch([floats(1)], {"a": floats(1)}) == "(float32[1]) against {'a': float32[1]}"


def test_nan_and_zero_are_found() -> None:
    assert has_nan([floats(1), floats(NAN)]) and not has_nan(floats(INF)) and not has_nan(np.array([1]))
    assert is_all_zero({"a": floats(0, 0)}) and not is_all_zero(floats(0, 1)) and not is_all_zero(np.array([""]))
