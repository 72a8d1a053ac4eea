"""Operators that move data: how many channels leave through each spelling, what its constants say then, what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.operators.cutting import attributes_of, cut_half, model_of, normal, sizes_of
from tests.operators.labelling import constants_of, coupling_of, reasons

WEIGHTS = {
    "w": normal(5, 12),
    "v": normal(5, 12, seed=1),
    **{f"end{n}": normal(n, 3, seed=n) for n in (2, 3, 4, 6, 7, 8, 9, 12, 15, 17, 24)},
    "table": normal(7, 12, seed=2),
    "prompt": normal(1, 2, 12, seed=3),
    "zero": np.float32(0),
    "one": np.float32(1),
    **{f"i{n}": np.array([n], np.int64) for n in (0, 1, 2, 4, 6, 100)},
    **{f"m{n}": np.array([-n], np.int64) for n in (1, 3, 12)},
    "max": np.array([2**63 - 1], np.int64),
    "parts": np.array([4, 6, 2], np.int64),
    "halves": np.array([6, 6], np.int64),
    "ids": np.array([11, 0, 4, -1], np.int64),
    "id": np.array(1, np.int64),
    "grid": np.array([[0, 1], [2, 3]], np.int64),
    "twice": np.array([1, 1, 2], np.int64),
    "pads": np.array([0, 0, 1, 0, 0, 2], np.int64),
    "cropped": np.array([0, 0, -1, 0, 0, 0], np.int64),
    "amounts": np.array([1, 2], np.int64),
    "to4": np.array([0, 2, 12, 1], np.int64),
    "wide": np.array([2, 2, 2, 12], np.int64),
    "ones": np.array([1, 1, 1], np.int64),
}


def tokens(text: str, opset: int = 17, more: str = "") -> Any:
    """A model on tokens x [2, 2, 5] whose channels h [2, 2, 12] come out of a weight."""
    h = "" if text.lstrip().startswith("h =") else "h = MatMul (x, w)"
    return model_of(f"(float[2, 2, 5] x{more}) => (float[a, b, 3] y) {{ {h}  {text} }}", WEIGHTS, opset)


@pytest.mark.parametrize(
    ("text", "opset", "left"),
    [
        ("t = Transpose (h)  r = Transpose (t)  y = MatMul (r, end12)", 17, {"w": [5, 6], "end12": [6, 3]}),
        ("e = Expand (h, wide)  s = ReduceSum <keepdims = 0> (e, i0)  y = MatMul (s, end12)", 17, {"w": [5, 6]}),
        ("e = Expand (h, ones)  y = MatMul (e, end12)", 17, {"w": [5, 6]}),
        ("t = Tile (h, twice)  y = MatMul (t, end24)", 17, {"w": [5, 6], "end24": [12, 3]}),
        ("u = Unsqueeze (h, i1)  s = Squeeze (u, i1)  y = MatMul (s, end12)", 17, {"w": [5, 6]}),
        ("u = Unsqueeze <axes = [1]> (h)  s = Squeeze <axes = [1]> (u)  y = MatMul (s, end12)", 11, {"w": [5, 6]}),
        ("s = Slice (h, i0, max, i2)  y = MatMul (s, end12)", 17, {"w": [5, 6], "end12": [6, 3]}),
        ("a, b, c = Split <axis = 2> (h, parts)  m = Mul (a, a)  u = MatMul (m, end4)  v1 = MatMul (b, end6)"
         "  y = Add (u, v1)", 17, {"w": [5, 6]}),
        ("a, b = Split <axis = -1> (h)  m = Mul (a, b)  y = MatMul (m, end6)", 17, {"w": [5, 6], "end6": [3, 3]}),
        ("a, b = Split <axis = -1> (h)  m = Mul (a, b)  y = MatMul (m, end6)", 11, {"w": [5, 6], "end6": [3, 3]}),
        ("a, b = Split <axis = -1, num_outputs = 2> (h)  m = Mul (a, b)  y = MatMul (m, end6)", 18, {"w": [5, 6]}),
        ("a, b = Split <axis = -1, split = [6, 6]> (h)  m = Mul (a, b)  y = MatMul (m, end6)", 11, {"w": [5, 6]}),
        ("a, b = Split <axis = 0> (h)  m = Add (a, b)  y = MatMul (m, end12)", 17, {"w": [5, 6]}),
        ("g = Gather <axis = 2> (h, ids)  y = MatMul (g, end4)", 17, {}),
        ("g = Gather <axis = 1> (h, id)  u = Unsqueeze (g, i1)  y = MatMul (u, end12)", 17, {"w": [5, 6]}),
        ("c = Concat <axis = 2> (h, x)  l = Relu (c)  y = MatMul (c, end17)", 17, {}),
        ("p = Pad (h, pads)  y = MatMul (p, end15)", 17, {"w": [5, 6], "end15": [9, 3]}),
        ("p = Pad <pads = [0, 0, 1, 0, 0, 2], value = 0.0> (h)  y = MatMul (p, end15)", 10, {"w": [5, 6]}),
        ("p = Pad (h, amounts, zero, i2)  y = MatMul (p, end15)", 18, {"w": [5, 6], "end15": [9, 3]}),
        ("p = Pad <mode = \"edge\"> (h, amounts, , i1)  y = MatMul (p, end12)", 18, {"w": [5, 6]}),
        ("p0 = Trilu (k)  p = MatMul (p0, h)  y = MatMul (p, end12)", 17, {"w": [5, 6]}),
    ],
)  # fmt: skip
def test_channels_pass(text: str, opset: int, left: dict[str, list[int]]) -> None:
    more = ", float[2, 2, 2] k" if "k)" in text else ""
    compact = sizes_of(cut_half(tokens(text, opset, more)).compact)
    assert {name: compact[name] for name in left} == left
    assert compact["w"][1] < 12


@pytest.mark.parametrize(
    ("start", "stop", "opset", "kept"),
    [("i0", "i6", 17, 6), ("i4", "max", 17, 8), ("m12", "i6", 17, 6), ("i2", "m3", 17, 7), ("m3", "max", 17, 3),
     ("i2", "m1", 17, 9), ("i4", "i100", 17, 8), ("4", "12", 9, 8), ("0", "-3", 9, 9)],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_slices_keep_what_they_meant(start: str, stop: str, opset: int, kept: int, seed: int) -> None:
    """Places are counted from either end; what the slice passes over leaves too, as nobody reads it."""
    if opset < 10:
        text = f"s = Slice <axes = [2], starts = [{start}], ends = [{stop}]> (h)  y = MatMul (s, end{kept})"
    else:
        text = f"s = Slice (h, {start}, {stop}, i2)  y = MatMul (s, end{kept})"
    compact = sizes_of(cut_half(tokens(text, opset), seed=seed).compact)
    assert compact["w"] == [5, 6]
    assert 0 < compact[f"end{kept}"][0] <= kept


def test_equal_parts_become_explicit_ones() -> None:
    for opset in (11, 13, 18):
        number = ", num_outputs = 2" if opset == 18 else ""
        text = f"a, b = Split <axis = 2{number}> (h)  u = MatMul (a, end6)  v1 = MatMul (b, end6)  y = Add (u, v1)"
        compact = cut_half(tokens(text, opset)).compact
        (attributes,) = attributes_of(compact, "Split")
        parts = attributes["split"] if opset < 13 else constants_of(compact)[-1]
        assert "num_outputs" not in attributes
        assert sum(parts) == sizes_of(compact)["w"][1]


def test_indices_are_those_of_the_channels_that_stay() -> None:
    """Channels 11, 0, 4 and 11 again: a shuffle that drops some and repeats one."""
    text = "g = Gather <axis = 2> (h, ids)  y = MatMul (g, end4)"
    for seed in range(4):
        compact = cut_half(tokens(text), seed=seed).compact
        (indices,) = constants_of(compact)
        assert len(indices) == sizes_of(compact)["end4"][0]
        assert all(-sizes_of(compact)["w"][1] <= i < sizes_of(compact)["w"][1] for i in indices)


def test_a_table_of_embeddings_loses_columns() -> None:
    text = "(int64[2, 2] ids) => (float[2, 2, 3] y) { h = Gather (table, ids)  y = MatMul (h, end12) }"
    compact = sizes_of(cut_half(model_of(text, {k: v for k, v in WEIGHTS.items() if k != "ids"})).compact)
    assert compact == {"table": [7, 6], "end12": [6, 3]}


def test_a_learnt_key_beside_others_is_cut_with_them() -> None:
    """A Concat along the tokens ties what it joins along the channels; a weight among them is cut, and never zero."""
    text = """(float[1, 2, 5] x) => (float[1, 2, b] y) { h = MatMul (x, w)  k = MatMul (x, v)
        c = Concat <axis = 1> (k, k, prompt)  t = Transpose <perm = [0, 2, 1]> (c)  y = MatMul (h, t) }"""
    compact = sizes_of(cut_half(model_of(text, WEIGHTS)).compact)
    assert compact == {"w": [5, 6], "v": [5, 6], "prompt": [1, 2, 6]}
    text = """(float[1, 2, 5] x) => (float[1, b, 3] y) { h = MatMul (x, w)
        c = Concat <axis = 1> (h, prompt)  y = MatMul (c, end12) }"""
    assert any("is not zero" in reason for reason in reasons(coupling_of(model_of(text, WEIGHTS))))


def test_weights_that_are_joined_are_cut_like_one() -> None:
    text = """(float[2, 5] x) => (float[2, 3] y) { k = Concat <axis = 1> (w, v)  h = MatMul (x, k)
        a, b = Split <axis = 1> (h)  m = Mul (a, b)  e = Concat <axis = 0> (end6, end6)  y = MatMul (m, e) }"""
    compact = sizes_of(cut_half(model_of(text, WEIGHTS)).compact)
    assert sum(int(np.prod(size)) for size in compact.values()) < 5 * 24 + 36


def test_depth_and_space() -> None:
    arrays = {"w": normal(16, 4, 1, 1), "end": normal(3, 4, 1, 1, seed=1), "end16": normal(3, 16, 1, 1, seed=2)}
    for mode in ("DCR", "CRD"):
        text = f"""(float[2, 4, 4, 4] x) => (float[2, 3, 8, 8] y) {{ h = Conv (x, w)
            r = DepthToSpace <blocksize = 2, mode = "{mode}"> (h)  y = Conv (r, end) }}"""
        assert sizes_of(cut_half(model_of(text, arrays)).compact) == {"w": [8, 4, 1, 1], "end": [3, 2, 1, 1]}
    text = """(float[2, 4, 4, 4] x) => (float[2, 3, 2, 2] y) { h = Conv (x, w4)
        r = SpaceToDepth <blocksize = 2> (h)  y = Conv (r, end16) }"""
    compact = cut_half(model_of(text, arrays | {"w4": normal(4, 4, 1, 1, seed=3)})).compact
    assert sizes_of(compact) == {"w4": [2, 4, 1, 1], "end16": [3, 8, 1, 1]}


@pytest.mark.parametrize(
    ("text", "opset", "reason"),
    [
        ("t = Tile (h, n)  y = MatMul (t, end12)", 17, "the repeats of this Tile are computed"),
        ("s = Slice (h, n1, max, i2)  y = MatMul (s, end12)", 17, "Slice with computed bounds or a step"),
        ("s = Slice (h, i0, max, n1)  y = MatMul (s, end12)", 17, "the axes of this Slice are computed"),
        ("s = Slice (h, i0, max, i2, i2)  y = MatMul (s, end6)", 17, "Slice with computed bounds or a step"),
        ("a, b = Split <axis = 2> (h, n2)  u = MatMul (a, end6)  y = Add (u, x3)", 17, "parts of this Split are comp"),
        ("g = Gather <axis = 2> (h, n1)  y = Add (g, x3)", 17, "Gather by computed indices"),
        ("g0 = Gather <axis = 2> (h, grid)  g = ReduceSum <keepdims = 0> (g0, i2)  y = MatMul (g, end2)", 17,
         "by a table of them"),
        ("p = Pad (h, n6)  y = Add (p, x3)", 17, "Pad along the channels"),
        ("p = Pad (h, cropped)  y = Add (p, x3)", 17, "Pad along the channels"),
        ("p = Pad <mode = \"reflect\"> (h, pads)  y = MatMul (p, end15)", 17, "Pad along the channels"),
        ("p = Pad (h, pads, one)  y = MatMul (p, end15)", 17, "is not zero"),
        ("p = Trilu (h)  y = MatMul (p, end12)", 17, "Trilu keeps a triangle"),
        ("p = GatherElements <axis = 2> (h, n222)  y = Add (p, x3)", 17, "GatherElements takes channels apart"),
        ("s = Shape (h)  q = Size (h)  u = Unsqueeze (q, i0)  y = MatMul (h, end12)", 17, ""),
    ],
)  # fmt: skip
def test_channels_stay_for_a_reason(text: str, opset: int, reason: str) -> None:
    inputs = {"n": "int64[3]", "n1": "int64[1]", "n2": "int64[2]", "n6": "int64[6]", "n222": "int64[2, 2, 2]",
              "x3": "float[1, 1, 1]"}  # fmt: skip
    more = "".join(f", {kind} {name}" for name, kind in inputs.items() if f"{name})" in text or f"{name}," in text)
    found = reasons(coupling_of(tokens(text, opset, more)))
    assert any(reason in each for each in found), found


def test_an_open_axis_that_channels_are_spread_over_is_not_taken_apart() -> None:
    """[N, 4, L] flattened to [N, 4·L]: where a slice, a part or an index lies depends on L."""
    arrays = {"w": normal(4, 4, 1), "end": normal(1, 3), "i0": np.array([0], np.int64), "i1": np.array([1], np.int64),
              "i9": np.array([9], np.int64), "pads": np.array([0, 1, 0, 0], np.int64)}  # fmt: skip
    for use in (
        "s = Slice (f, i0, i9, i1)",
        "s, t = Split <axis = 1> (f)",
        "s = Gather <axis = 1> (f, i9)",
        "s = Pad (f, pads)",
        "s = Concat <axis = 1> (f, f)",
    ):
        text = f"""(float[N, 4, L] x) => (float[N, 1] y) {{ h = Conv (x, w)  f = Flatten (h)  {use}
            y = ReduceSum (s, i1) }}"""
        assert coupling_of(model_of(text, arrays)).channel_groups()[1] == 0
