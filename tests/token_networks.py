"""Transformers of one small layer in ONNX text, and sequences that they can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.operators.cutting import model_of, normal

WORDS, LENGTH, WIDTH = 12, 8, 8

_WEIGHTS = {
    "table": normal(WORDS, WIDTH, seed=1),
    "places": normal(LENGTH, WIDTH, seed=2),
    **{name: 0.3 * normal(WIDTH, WIDTH, seed=3 + at) for at, name in enumerate(("wq", "wk", "wv", "wo"))},
    "w1": 0.3 * normal(WIDTH, 16, seed=8),
    "w2": 0.3 * normal(16, WIDTH, seed=9),
    "head": 0.3 * normal(WIDTH, WORDS, seed=10),
    "first": 0.3 * normal(WIDTH, 1, seed=11),
    "one": np.array(1, np.float32),
    "low": np.array(-1e4, np.float32),
    "half": np.array(WIDTH**-0.5, np.float32),
    "middle": np.array([1], np.int64),
    "causal": np.triu(np.full((LENGTH, LENGTH), -1e4, np.float32), 1),
}


def _network(outputs: str, seen: str, end: str) -> onnx.ModelProto:
    return model_of(
        f"""(int64[N, {LENGTH}] input_ids, int64[N, {LENGTH}] attention_mask) => ({outputs}) {{
            e0 = Gather (table, input_ids)  e = Add (e0, places)
            q = MatMul (e, wq)  k = MatMul (e, wk)  v = MatMul (e, wv)
            kt = Transpose <perm = [0, 2, 1]> (k)  s0 = MatMul (q, kt)  s1 = Mul (s0, half)
            m0 = Cast <to = 1> (attention_mask)  m1 = Sub (one, m0)  m2 = Mul (m1, low)  m3 = Unsqueeze (m2, middle)
            s2 = Add (s1, m3)  {seen}  a = Softmax <axis = -1> (s)
            c = MatMul (a, v)  o = MatMul (c, wo)  r = Add (e, o)
            h = MatMul (r, w1)  i = Relu (h)  f = MatMul (i, w2)  z = Add (r, f)  {end} }}""",
        _WEIGHTS,
    )


def generator() -> onnx.ModelProto:
    """A causal language model: logits [N, T, words]."""
    return _network(f"float[N, {LENGTH}, {WORDS}] logits", "s = Add (s2, causal)", "logits = MatMul (z, head)")


def encoder() -> onnx.ModelProto:
    """A masked language model whose places see one another, with a second output [N, T, 1]."""
    return _network(
        f"float[N, {LENGTH}, {WORDS}] logits, float[N, {LENGTH}, 1] value",
        "s = Identity (s2)",
        "logits = MatMul (z, head)  value = MatMul (z, first)",
    )


def sequences(count: int = 192) -> dict[str, NDArray[np.int64]]:
    """Sequences that count on by one or two, the last places of some of them padded."""
    random = np.random.default_rng(0)
    start, stride = random.integers(0, WORDS - 1, (count, 1)), random.integers(1, 3, (count, 1))
    ids = 1 + (start + stride * np.arange(LENGTH)) % (WORDS - 1)
    shown = np.arange(LENGTH) < random.integers(LENGTH // 2, LENGTH + 1, (count, 1))
    return {"input_ids": np.where(shown, ids, 0), "attention_mask": shown.astype(np.int64)}


def saved(folder: Path, **arrays: NDArray[np.generic]) -> str:
    """The arrays as a data source."""
    np.savez(folder / "tokens.npz", **arrays)  # type: ignore[arg-type]
    return f"npz:{folder / 'tokens.npz'}"
