"""Lengths of labelled axes in shape arithmetic: kept as arithmetic where they are only moved, frozen where used."""

from __future__ import annotations

import numpy as np
import pytest

from tests.operators.cutting import cut_half, model_of, normal, sizes_of
from tests.operators.labelling import coupling_of, reasons

ARRAYS = {
    "w": normal(8, 4, 1, 1),
    "end": normal(3, 8, 1, 1, seed=1),
    "line": normal(8, 4, 1),
    "line_end": normal(3, 8, 1, seed=1),
    "one": normal(1, seed=3),
    "zero": np.array(0, np.int64),
    "first": np.array(1, np.int64),
    "firsts": np.array([0, 1], np.int64),
    "axis0": np.array([0], np.int64),
    "at1": np.array([1], np.int64),
    "at2": np.array([2], np.int64),
    "rest": np.array([-1], np.int64),
    "vector": np.array([1], np.int64),
}
HEAD = "(float[N, 4, H, W] x) => (float[N, 3, a, b] y) { h = Conv (x, w)  s = Shape (h)"
BACK = "k = Shape (h)  o = Reshape (r, k)  y = Conv (o, end) }"


@pytest.mark.parametrize(
    "pieces",
    [
        "n = Slice (s, axis0, at2)  t = Concat <axis = 0> (n, rest)",
        "n = Gather (s, firsts)  t = Concat <axis = 0> (n, rest)",
        "n = Gather (s, zero)  c = Gather (s, first)  nn = Unsqueeze (n, axis0)  cc = Unsqueeze (c, axis0)"
        "  t = Concat <axis = 0> (nn, cc, rest)",
        "n0 = Slice (s, axis0, at1, axis0, ones1)  n = Reshape (n0, vector)  c0 = Slice (s, at1, at2)"
        "  c1 = Cast <to = 6> (c0)  c = Cast <to = 7> (c1)  t = Concat <axis = 0> (n, c, rest)",
    ],
)
def test_a_length_that_is_only_moved_follows_by_itself(pieces: str) -> None:
    """[N, 8, H, W] to rows [N, 8, H·W] and back, with lengths that are read from the tensor."""
    text = f"{HEAD}  {pieces}  q = Reshape (h, t)  r = Relu (q)  {BACK}"
    result = cut_half(model_of(text, ARRAYS | {"ones1": np.array([1], np.int64)}))
    assert {name: sizes_of(result.compact)[name] for name in ("w", "end")} == {
        "w": [4, 4, 1, 1],
        "end": [3, 4, 1, 1],
    }
    assert "Shape" in {node.op_type for node in result.compact.graph.node}


@pytest.mark.parametrize(
    "use",
    [
        "c = Gather (s, firsts)  d = Mul (c, c)  f = Cast <to = 1> (d)  g = ReduceSum <keepdims = 0> (f)",
        "n = Slice (s, axis0, at2, axis0, vector)  d = Cast <to = 1> (n)  g = ReduceSum <keepdims = 0> (d)",
        "c = Slice (s, start, stop)  d = Cast <to = 1> (c)  g = ReduceSum <keepdims = 0> (d)",
        "e0 = Gather (s, firsts)  e = ConstantOfShape <value = float[1] {2.0}> (e0)  g = ReduceSum <keepdims = 0> (e)",
        "c = Gather (s, i)  d = Cast <to = 1> (c)  g = ReduceSum <keepdims = 0> (d)",
        "n = Size (h)  d = Cast <to = 1> (n)  g = Sqrt (d)",
    ],
)
def test_a_length_that_is_computed_with_keeps_the_channels(use: str) -> None:
    """The batch is open, so the arithmetic stays in the graph, and would give another number."""
    inputs = ", int64[1] start, int64[1] stop, int64[1] i"
    text = f"{HEAD}  {use}  q = Conv (h, end)  y = Div (q, g) }}".replace("W] x", f"W] x{inputs}")
    coupling = coupling_of(model_of(text, ARRAYS))
    assert any("is computed with" in reason for reason in reasons(coupling)), reasons(coupling)
    assert coupling.channel_groups()[1] == 0


def test_a_length_that_was_a_number_stays_that_number() -> None:
    """The number of channels alone is known for every input: 1/√8, as attention has it, is no matter of the graph."""
    text = f"{HEAD}  c = Gather (s, first)  d = Cast <to = 1> (c)  g = Sqrt (d)  q = Conv (h, end)  y = Div (q, g) }}"
    result = cut_half(model_of(text, ARRAYS))
    assert sizes_of(result.compact)["w"] == [4, 4, 1, 1]


def test_a_length_that_the_model_gives_keeps_the_channels() -> None:
    text = f"{HEAD}  c = Gather (s, firsts)  y = Conv (h, end) }}".replace("a, b] y", "a, b] y, int64[2] c")
    coupling = coupling_of(model_of(text, ARRAYS))
    assert coupling.channel_groups()[1] == 0


ROW = "(float[N, 4, L] x) => (float[N, 3, a] y) { h = Conv (x, line)  f = Flatten (h)  s = Shape (f)"


def test_the_open_length_of_flattened_channels_is_no_other_length() -> None:
    text = f"{ROW}  e = Expand (one, s)  g = ReduceMean <keepdims = 0> (e)  q = Conv (h, line_end)  y = Div (q, g) }}"
    coupling = coupling_of(model_of(text, ARRAYS))
    assert "the length of this axis is computed with" in reasons(coupling)


def test_a_length_used_for_another_axis_keeps_the_channels() -> None:
    """[N, H·W, 8] from [N, 8, H, W]: with fewer channels the positions might not divide by eight."""
    text = f"""{HEAD}  n = Slice (s, axis0, at1)  c = Slice (s, at1, at2)  t = Concat <axis = 0> (n, rest, c)
        q = Reshape (h, t)  r = Relu (q)  {BACK}"""
    coupling = coupling_of(model_of(text, ARRAYS))
    assert coupling.channel_groups()[1] == 0
