"""Networks of a few channels for the tests of groups, orders and costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.space import SearchSpace, analyze
from tests.operators.cutting import model_of, normal

WEIGHTS: dict[str, Any] = {
    "w": normal(8, 4, 1, 1),
    "b": normal(8, seed=1),
    "scale": normal(8, seed=2),
    "shift": normal(8, seed=3),
    "mean": normal(8, seed=4),
    "variance": np.linspace(0.5, 2, 8, dtype=np.float32),
    "v": normal(6, 8, 1, 1, seed=5),
    "u": normal(8, 6, 1, 1, seed=6),
    "end": normal(3, 8, 1, 1, seed=7),
    "q": normal(5, 12, seed=8),
    "k": normal(5, 12, seed=9),
    "o": normal(12, 3, seed=10),
    "to_heads": np.array([0, 0, 4, 3], np.int64),
    "back": np.array([0, 0, 12], np.int64),
}


def residual() -> onnx.ModelProto:
    """A trunk h of 8 channels, normalised, and a branch of 6 channels within that is added to it."""
    return model_of(
        """(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) {
            h0 = Conv (x, w, b)  h = BatchNormalization (h0, scale, shift, mean, variance)
            m = Conv (h, v)  r = Relu (m)  g = Conv (r, u)  s = Add (h, g)  y = Conv (s, end) }""",
        WEIGHTS,
    )


def heads() -> onnx.ModelProto:
    """A product of two projections to four heads of three places, after a softmax within the head."""
    return model_of(
        """(float[N, 2, 5] x) => (float[N, 2, 3] y) {
            a0 = MatMul (x, q)  a1 = Reshape (a0, to_heads)  a = Softmax (a1)
            c0 = MatMul (x, k)  c = Reshape (c0, to_heads)  p = Mul (a, c)
            m = Reshape (p, back)  y = MatMul (m, o) }""",
        WEIGHTS,
    )


def chain(*widths: int) -> onnx.ModelProto:
    """Linear layers of these widths, a Relu between them."""
    arrays = {f"w{i}": normal(a, b, seed=i) for i, (a, b) in enumerate(pairwise(widths))}
    steps, last = [], "x"
    for i in range(len(arrays)):
        steps.append(f"h{i} = MatMul ({last}, w{i})  r{i} = Relu (h{i})")
        last = f"r{i}"
    inside = f"{' '.join(steps)}  y = Neg ({last})"
    return model_of(f"(float[N, {widths[0]}] x) => (float[N, {widths[-1]}] y) {{ {inside} }}", arrays)


def prunable(model: onnx.ModelProto, **options: Any) -> SearchSpace:
    """The space of a model's channels."""
    return analyze(model, mode="prune", **options)
