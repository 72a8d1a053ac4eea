"""Pools, resizing and sampling: channel by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.operators.cutting import cut_half, model_of, normal, sizes_of
from tests.operators.labelling import constants_of, coupling_of, reasons

WEIGHTS = {
    "w": normal(8, 4, 1, 1),
    "end": normal(3, 8, 1, 1, seed=1),
    "sizes": np.array([2, 8, 9, 12], np.int64),
    "square": np.array([9, 12], np.int64),
    "with_channels": np.array([8, 9], np.int64),
    "scales": np.float32([1, 1, 2, 2]),
    "doubled": np.float32([1, 2, 1, 1]),
    "boxes": np.float32([[0, 0, 4, 4], [1, 1, 5, 3]]),
    "images": np.array([0, 1], np.int64),
    "grid": np.random.default_rng(0).uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32),
    "roi": np.float32([0, 0, -1, 0, 1, 1, 2, 1]),
    "two": normal(2, 8, 1, 1, seed=2),
    "same": normal(8, 8, 1, 1, seed=4),
    "half": normal(8, 16, 1, 1, seed=3),
    "g8": np.random.default_rng(1).uniform(-1, 1, (8, 3, 3, 2)).astype(np.float32),
    "rows": np.array([2, 8, 36], np.int64),
    "image": np.array([6, 6], np.int64),
    "block": np.array([1, 1], np.int64),
}


def images(text: str, opset: int = 19, more: str = "") -> Any:
    """A model on x [2, 4, 6, 6] with channels h [2, 8, 6, 6] that gives r to a last convolution."""
    text = f"h = Conv (x, w)  {text}  y = Conv (r, end)"
    return model_of(f"(float[2, 4, 6, 6] x{more}) => (float[n, 3, a, b] y) {{ {text} }}", WEIGHTS, opset)


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("r = AveragePool <kernel_shape = [3, 3]> (h)", 19),
        ("r = MaxPool <kernel_shape = [3, 3]> (h)", 19),
        ("r = LpPool <kernel_shape = [2, 2]> (h)", 18),
        ("r = GlobalLpPool (h)", 19),
        ("r = GlobalMaxPool (h)", 19),
        ("r = Resize <mode = \"linear\"> (h, , scales)", 19),
        ("r = Resize <mode = \"nearest\"> (h, , , sizes)", 19),
        ("r = Resize <mode = \"nearest\", axes = [2, 3]> (h, , , square)", 19),
        ("r = Resize <mode = \"nearest\", axes = [1, 2]> (h, , , with_channels)", 19),
        ("r = Upsample (h, scales)", 9),
        ("r = GridSample <mode = \"bilinear\"> (h, grid)", 16),
        ("r = RoiAlign <output_height = 2, output_width = 2> (h, boxes, images)", 16),
    ],
)  # fmt: skip
def test_half_of_the_channels_leave(text: str, opset: int) -> None:
    compact = cut_half(images(text, opset)).compact
    assert (sizes_of(compact)["w"], sizes_of(compact)["end"]) == ([4, 4, 1, 1], [3, 4, 1, 1])
    if "sizes)" in text:
        assert constants_of(compact) == [[2, 4, 9, 12]]
    if "with_channels" in text:
        assert constants_of(compact) == [[4, 9]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("q, i = MaxPool <kernel_shape = [1, 1]> (h)  j = Cast <to = 1> (i)  r = Mul (q, j)", "count the channels"),
        ("r = Resize (h, , , n)", "Resize resizes the axis of the channels"),
        ("q = Resize (h, , doubled)  r = Conv (q, half)", "Resize resizes the axis of the channels"),
        ("g0 = Conv (h, two)  g = Transpose <perm = [0, 2, 3, 1]> (g0)  r = GridSample (x8, g)", "samples by it"),
        ("t = Transpose (h)  p = AveragePool <kernel_shape = [1, 1]> (t)  r = Transpose (p)", "that carries channels"),
        ("t = Transpose <perm = [1, 0, 2, 3]> (h)  q = GridSample (t, g8)  r = Transpose <perm = [1, 0, 2, 3]> (q)",
         "GridSample of labelled batches"),
        ("f = Reshape (h, rows)  c = Col2Im (f, image, block)  r = Conv (c, same)", "Col2Im is not taken apart"),
    ],
)  # fmt: skip
def test_channels_stay_for_a_reason(text: str, reason: str) -> None:
    found = reasons(coupling_of(images(text, 20, ", int64[4] n, float[2, 8, 6, 6] x8")))
    assert any(reason in each for each in found), found


def test_what_is_filled_in_is_not_zero() -> None:
    text = """r = Resize <coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = %s>
        (h, roi, , sizes)"""
    for value, free in (("0.0", 8), ("1.5", 0)):
        assert coupling_of(images(text % value)).channel_groups()[1] == free
