"""Convolutions: which slices of their weights leave, and how many groups are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.operators.cutting import attributes_of, cut_half, free_groups, model_of, normal, sizes_of
from tests.operators.labelling import coupling_of, groups_at, reasons

ARRAYS = {
    "w": normal(8, 4, 1, 1),
    "b": normal(8, seed=1),
    "end": normal(3, 8, 1, 1, seed=2),
    "end16": normal(3, 16, 1, 1, seed=3),
    "end4": normal(3, 4, 1, 1, seed=14),
    "grouped": normal(16, 4, 3, 3, seed=4),  # two groups of four read, eight made
    "halves": normal(4, 2, 1, 1, seed=5),  # four groups of two read, one made
    "depthwise": normal(8, 1, 3, 3, seed=6),
    "twofold": normal(16, 1, 3, 3, seed=7),
    "bias16": normal(16, seed=8),
    "up": normal(8, 3, 2, 2, seed=9),
    "up_grouped": normal(8, 8, 1, 1, seed=10),  # two groups of four read, eight made
    "up_depthwise": normal(8, 1, 2, 2, seed=11),
    "up_whole": normal(8, 1, 1, 1, seed=12),  # four groups of two read, one made
    "turned": normal(4, 8, seed=13),
    "bias8": normal(1, 8, seed=15),
    "shape": np.array([8, 4, 1, 1], np.int64),
}


def images(text: str, shape: str = "N, 4, 6, 6") -> Any:
    """A model on x [N, 4, 6, 6] that gives y."""
    return model_of(f"(float[{shape}] x) => (float[N, 3, h, w1] y) {{ {text} }}", ARRAYS)


@pytest.mark.parametrize(
    ("text", "left", "group"),
    [
        ("h = Conv (x, w, b)  y = Conv (h, end)", {"w": [4, 4, 1, 1], "b": [4], "end": [3, 4, 1, 1]}, 1),
        (
            "h = Conv (x, w)  g = Conv <group = 2> (h, grouped, bias16)  y = Conv (g, end16)",
            {"w": [4, 4, 1, 1], "grouped": [8, 2, 3, 3], "bias16": [8], "end16": [3, 8, 1, 1]},
            2,
        ),
        (
            "h = Conv (x, w)  g = Conv <group = 4> (h, halves)  y = Conv (g, end4)",
            {"w": [4, 4, 1, 1], "halves": [2, 2, 1, 1], "end4": [3, 2, 1, 1]},
            2,
        ),
        (
            "h = Conv (x, w)  g = Conv <group = 8> (h, depthwise, b)  y = Conv (g, end)",
            {"w": [4, 4, 1, 1], "depthwise": [4, 1, 3, 3], "b": [4], "end": [3, 4, 1, 1]},
            4,
        ),
        (
            "h = Conv (x, w)  g = Conv <group = 8> (h, twofold)  y = Conv (g, end16)",
            {"w": [4, 4, 1, 1], "twofold": [8, 1, 3, 3], "end16": [3, 8, 1, 1]},
            4,
        ),
        ("h = Conv (x, w)  y = ConvTranspose (h, up)", {"w": [4, 4, 1, 1], "up": [4, 3, 2, 2]}, 1),
        (
            "h = Conv (x, w)  g = ConvTranspose <group = 2> (h, up_grouped, bias16)  y = Conv (g, end16)",
            {"w": [4, 4, 1, 1], "up_grouped": [4, 4, 1, 1], "bias16": [8], "end16": [3, 8, 1, 1]},
            2,
        ),
        (
            "h = Conv (x, w)  g = ConvTranspose <group = 8> (h, up_depthwise, b)  y = Conv (g, end)",
            {"w": [4, 4, 1, 1], "up_depthwise": [4, 1, 2, 2], "b": [4], "end": [3, 4, 1, 1]},
            4,
        ),
        (
            "h = Conv (x, w)  g = ConvTranspose <group = 4> (h, up_whole)  y = Conv (g, end4)",
            {"w": [4, 4, 1, 1], "up_whole": [4, 1, 1, 1], "end4": [3, 2, 1, 1]},
            2,
        ),
    ],
)
def test_half_of_the_channels_leave(text: str, left: dict[str, list[int]], group: int) -> None:
    result = cut_half(images(text))
    assert sizes_of(result.compact) == left
    convolutions = [*attributes_of(result.compact, "Conv"), *attributes_of(result.compact, "ConvTranspose")]
    assert [a["group"] for a in convolutions if "group" in a] == ([group] if "group" in text else [])


def test_outputs_leave_over_an_input_that_stays() -> None:
    """The groups read the model's input: the same index of what each makes leaves."""
    result = cut_half(images("g = Conv <group = 2> (x, grouped, bias16)  y = Conv (g, end16)", "N, 8, 6, 6"))
    assert sizes_of(result.compact) == {"grouped": [8, 4, 3, 3], "bias16": [8], "end16": [3, 8, 1, 1]}
    assert free_groups(result) == 8


def test_a_grouped_convolution_ties_the_same_place_of_every_group() -> None:
    coupling = coupling_of(images("h = Conv (x, w)  g = Conv <group = 2> (h, grouped)  y = Conv (g, end16)"))
    assert groups_at(coupling, "h").reshape(2, 4).tolist() == [[0, 1, 2, 3]] * 2
    assert groups_at(coupling, "g").reshape(2, 8).tolist() == [list(range(8))] * 2


def test_a_depthwise_convolution_of_what_stays_stays() -> None:
    text = "g = Conv <group = 8> (x, depthwise)  y = Conv (g, end)"
    assert coupling_of(images(text, "N, 8, 6, 6")).channel_groups() == (3, 0)


def test_a_view_of_a_weight_is_cut_where_its_labels_lie() -> None:
    text = """t = Transpose <perm = [1, 0]> (turned)  r = Unsqueeze (t, axes)  h = Conv (x, r, b)
        b1 = Squeeze (bias8, axis0)  g = Conv (x, w, b1)  s = Add (h, g)  y = Conv (s, end)"""
    arrays = ARRAYS | {"axes": np.array([2, 3], np.int64), "axis0": np.array([0], np.int64)}
    model = model_of(f"(float[N, 4, 6, 6] x) => (float[N, 3, h1, w1] y) {{ {text} }}", arrays)
    compact = sizes_of(cut_half(model).compact)
    expected = {"turned": [4, 4], "w": [4, 4, 1, 1], "b": [4], "bias8": [1, 4], "end": [3, 4, 1, 1]}
    assert {name: compact[name] for name in expected if name in compact} == {
        name: size for name, size in expected.items() if name in compact
    }
    assert sum(int(np.prod(size)) for size in compact.values()) < 100


def test_a_weight_that_is_computed_keeps_what_it_reads() -> None:
    text = "h = Conv (x, w)  p = GlobalAveragePool (x)  k = Expand (p, shape)  g = Conv (x, k)  y = Conv (g, end)"
    model = model_of(f"(float[1, 4, 6, 6] x) => (float[1, 3, h1, w1] y, float[1, 8, 6, 6] h) {{ {text} }}", ARRAYS)
    assert coupling_of(model).channel_groups()[1] == 0
    text = """h = Conv (x, w)  p = GlobalAveragePool (h)  k = Transpose <perm = [1, 0, 2, 3]> (p)
        e = Expand (k, shape)  g = Conv (x, e)  y = Conv (g, end)"""
    model = model_of(f"(float[1, 4, 6, 6] x) => (float[1, 3, h1, w1] y) {{ {text} }}", ARRAYS)
    assert "the weight of this Conv is computed" in reasons(coupling_of(model))
