"""Normalisations: which of them let channels go, and what shrinks with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.operators.cutting import attributes_of, cut_half, free_groups, model_of, normal, sizes_of
from tests.operators.labelling import coupling_of, groups_at, reasons

WEIGHTS = {
    "w": normal(8, 4, 1, 1),
    "end": normal(3, 8, 1, 1, seed=1),
    "wt": normal(5, 12, seed=2),
    "endt": normal(12, 3, seed=3),
    **{f"s{n}": normal(n, seed=n) for n in (3, 4, 6, 8)},
    **{f"b{n}": normal(n, seed=n + 20) for n in (3, 4, 6, 8)},
    "map": normal(8, 6, 6),
    "per_head": normal(4, 3),
    "mean": normal(8, seed=30),
    "variance": np.linspace(0.5, 2, 8, dtype=np.float32),
    "to_heads": np.array([0, 0, 4, 3], np.int64),
    "back": np.array([0, 0, 12], np.int64),
    "to_groups": np.array([0, 4, -1], np.int64),
    "to_images": np.array([0, 8, 6, 6], np.int64),
}


def images(text: str, opset: int = 17) -> Any:
    """A model on x [2, 4, 6, 6] whose channels h [2, 8, 6, 6] are normalised into r."""
    return model_of(f"(float[2, 4, 6, 6] x) => (float[2, 3, 6, 6] y) {{ h = Conv (x, w)  {text} }}", WEIGHTS, opset)


def heads(text: str, opset: int = 17) -> Any:
    """A model on tokens whose heads s [2, 2, 4, 3] are normalised into r."""
    text = f"h = MatMul (x, wt)  s = Reshape (h, to_heads)  {text}  m = Reshape (r, back)  y = MatMul (m, endt)"
    return model_of(f"(float[2, 2, 5] x) => (float[2, 2, 3] y) {{ {text} }}", WEIGHTS, opset)


@pytest.mark.parametrize(
    ("text", "opset", "groups", "left"),
    [
        ("r = BatchNormalization (h, s8, b8, mean, variance)", 17, 8, {"s8": [4], "mean": [4], "variance": [4]}),
        ("r = InstanceNormalization (h, s8, b8)", 17, 8, {"s8": [4], "b8": [4]}),
        ("r = GroupNormalization <num_groups = 4> (h, s8, b8)", 21, 4, {"s8": [4], "b8": [4]}),
        ("r = GroupNormalization <num_groups = 4> (h, s4, b4)", 18, 4, {"s4": [2], "b4": [2]}),
        ("r = LpNormalization <axis = 2> (h)", 22, 8, {}),
    ],
)
def test_channels_leave_through_it(text: str, opset: int, groups: int, left: dict[str, list[int]]) -> None:
    model = images(f"{text}  y = Conv (r, end)", opset)
    assert coupling_of(model).channel_groups()[1] == groups
    result = cut_half(model, by_reference=opset > 21 or (opset == 21 and "Group" in text))
    compact = sizes_of(result.compact)
    assert {name: compact[name] for name in left} == left
    assert compact["w"] == [4, 4, 1, 1]
    assert [a["num_groups"] for a in attributes_of(result.compact, "GroupNormalization")] == [2] * ("Group" in text)


@pytest.mark.parametrize(
    ("text", "opset", "reason"),
    [
        ("r = LRN <size = 3> (h)", 17, "LRN mixes neighbouring channels"),
        ("r = GroupNormalization <num_groups = 1> (h, s8, b8)", 21, "GroupNormalization normalises over this axis"),
        ("r = LpNormalization <axis = 1> (h)", 22, "LpNormalization normalises over this axis"),
        ("r = LpNormalization <axis = 2> (h)", 17, "LpNormalization is not finite at zero"),
        ("r = MeanVarianceNormalization <axes = [0, 1, 2, 3]> (h)", 17, "MeanVarianceNormalization normalises over"),
        (
            "t = Transpose (h)  q = InstanceNormalization (t, s6, b6)  r = Transpose (q)",
            17,
            "normalises over this axis",
        ),
        ("q = LayerNormalization <axis = 1> (h, map, map)  r = Relu (q)", 17, "LayerNormalization normalises over"),
    ],
)
def test_channels_stay_where_they_count_together(text: str, opset: int, reason: str) -> None:
    found = reasons(coupling_of(images(f"{text}  y = Conv (r, end)", opset)))
    assert any(reason in each for each in found), found


def test_group_normalisation_keeps_whole_groups_together() -> None:
    text = "r = GroupNormalization <num_groups = 4> (h, s8, b8)  y = Conv (r, end)"
    assert groups_at(coupling_of(images(text, 21)), "h").reshape(4, 2).tolist() == [[0] * 2, [1] * 2, [2] * 2, [3] * 2]


def test_group_normalisation_written_out() -> None:
    """As exporters of older sets write it: a Reshape to [N, groups, -1], InstanceNormalization, and back."""
    text = """g = Reshape (h, to_groups)  n = InstanceNormalization (g, s4, b4)  m = Reshape (n, to_images)
        r = Relu (m)  y = Conv (r, end)"""
    result = cut_half(images(text))
    compact = sizes_of(result.compact)
    assert free_groups(result) == 4
    assert (compact["w"], compact["s4"], compact["b4"], compact["end"]) == ([4, 4, 1, 1], [2], [2], [3, 4, 1, 1])


@pytest.mark.parametrize(
    ("text", "opset", "free"),
    [
        ("r = LayerNormalization (s, s3)", 17, 4),  # query and key norms run within a head
        ("r = LayerNormalization (s, s3, b3)", 17, 0),  # what is added is not zero with the head
        ("n, mu, d = LayerNormalization (s, s3)  r = Mul (n, mu)", 17, 4),
        ("n, mu, d = LayerNormalization (s, s3)  r = Add (n, mu)", 17, 0),
        ("r = RMSNormalization (s, s3)", 23, 4),
        ("r = LayerNormalization <axis = 2> (s, per_head)", 17, 0),
        ("r = Softmax (s)", 17, 0),  # one over their number, not zero
        ("q = Softmax (s)  r = Mul (q, s)", 17, 4),
        ("q = Softmax <axis = 3> (s)  r = Mul (q, s)", 11, 4),
        ("q = Softmax <axis = 2> (s)  r = Mul (q, s)", 11, 0),  # coerced to two dimensions: over all the heads
        ("q = Softmax <axis = 2> (s)  r = Mul (q, s)", 17, 3),  # over the heads: places of all heads leave together
    ],
)
def test_heads_leave_through_what_runs_within_them(text: str, opset: int, free: int) -> None:
    model = heads(text, opset)
    assert coupling_of(model).channel_groups()[1] == free
    if free:
        cut_half(model, by_reference=opset > 21)
