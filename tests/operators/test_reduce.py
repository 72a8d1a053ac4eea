"""Reductions over channels, beside them, and within heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.operators.cutting import cut_half, model_of, normal, sizes_of
from tests.operators.labelling import coupling_of, reasons

WEIGHTS = {
    "w": normal(5, 12),
    "end": normal(12, 3, seed=1),
    "end4": normal(4, 3, seed=2),
    "to_heads": np.array([0, 0, 4, 3], np.int64),
    "back": np.array([0, 0, 12], np.int64),
    **{f"i{n}": np.array([n], np.int64) for n in (0, 1, 2, 3)},
    "both": np.array([1, 2], np.int64),
    "number": np.array(1, np.int64),
    "none": np.array([], np.int64),
}


def tokens(text: str, opset: int = 17, more: str = "") -> Any:
    """A model on tokens x [2, 2, 5] with channels h [2, 2, 12] and heads s [2, 2, 4, 3]."""
    head = "h = MatMul (x, w)" + ("  s = Reshape (h, to_heads)" if "(s" in text else "")
    return model_of(f"(float[2, 2, 5] x{more}) => (float y) {{ {head}  {text} }}", WEIGHTS, opset)


END = "y = ReduceSum <keepdims = 0> (e)"


@pytest.mark.parametrize(
    ("text", "opset", "free"),
    [
        ("r = ReduceMean <axes = [1]> (h)  e = MatMul (r, end)", 17, 12),
        ("r = ReduceMean (h, i1)  e = MatMul (r, end)", 18, 12),
        ("r = ReduceMean <keepdims = 0> (h, i1)  e = MatMul (r, end)", 18, 12),
        ("r = ReduceMax <axes = [-2]> (h)  e = MatMul (r, end)", 17, 12),
        ("r = ReduceMean <noop_with_empty_axes = 1> (h, none)  e = MatMul (r, end)", 18, 12),
        ("r = ReduceProd <axes = [1]> (h)  e = MatMul (r, end)", 17, 0),  # zero or not, the rule does not say
        ("r = ReduceLogSumExp <axes = [1]> (h)  e = MatMul (r, end)", 17, 0),
        ("q = Abs (h)  r = ReduceLogSum <axes = [1]> (q)  e = MatMul (r, end)", 17, 0),
        ("r = ReduceSum (h, i2)  e = Relu (r)", 17, 12),  # nothing to a sum is what is zero
        ("r = ReduceL2 (h, both)  e = Relu (r)", 18, 12),
        ("r = ReduceSumSquare (h)  e = Relu (r)", 18, 12),
        ("r = ReduceMean (h, i2)  e = Relu (r)", 18, 12),  # scaled to the mean over all
        ("r = ReduceMax (h, i2)  e = Relu (r)", 18, 0),
        ("r = ReduceMax (s, i3)  q = Squeeze (r, i3)  e = MatMul (q, end4)", 18, 4),
        ("r = ReduceMax (s, i2)  e = Relu (r)", 18, 3),
        ("r = CumSum (h, number)  e = MatMul (r, end)", 17, 12),
        ("r0 = CumSum (s, i3)  r = Reshape (r0, back)  e = MatMul (r, end)", 17, 4),
        ("r0 = CumSum (h, i2)  e = MatMul (r0, end)", 17, 0),
        ("v, i = TopK <axis = 1> (h, i1)  e = MatMul (v, end)", 17, 12),
        ("v, i = TopK (h, i1)  e = Relu (v)", 17, 0),
        ("i = ArgMax <axis = 1> (h)  e = Cast <to = 1> (i)", 17, 0),
        ("i = ArgMax <axis = 2> (h)  e = Cast <to = 1> (i)", 17, 0),
    ],
)
def test_how_many_channels_leave(text: str, opset: int, free: int) -> None:
    model = tokens(f"{text}  {END}", opset)
    coupling = coupling_of(model)
    produced = 3 if "(r, end" in text or "(q, end" in text or "(v, end" in text or "(r0, end" in text else 0
    # what the last weight makes is summed by itself, and so is free as well
    assert coupling.channel_groups()[1] == free + produced, reasons(coupling)
    if free:
        assert sizes_of(cut_half(model).compact)["w"][1] < 12


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r = ReduceMean (h, n)  e = Relu (r)", "the axes of the reduction are computed"),
        ("r = CumSum (h, n0)  e = Relu (r)", "CumSum over a computed axis"),
        ("i = ArgMin <axis = 1> (h)  e = Cast <to = 1> (i)", "ArgMin compares channels"),
        ("v, i = TopK <axis = 2> (h, n)  e = Relu (v)", "TopK chooses among channels"),
        ("q = Abs (h)  r = ReduceLogSum (q, i2)  e = Relu (r)", "ReduceLogSum is not finite at zero"),
    ],
)
def test_channels_stay_for_a_reason(text: str, reason: str) -> None:
    found = reasons(coupling_of(tokens(f"{text}  {END}", 18, ", int64[1] n, int64 n0")))
    assert any(reason in each for each in found), found
