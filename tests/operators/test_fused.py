"""Fusions, as onnxruntime's own optimiser writes them over small models, and by hand where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import import_onnxruntime
from onnx_asgnas.operators import trainable_parameters
from onnx_asgnas.space import analyze
from tests.operators.cutting import Array, cut_half, free_groups, model_of, normal, sizes_of

WEIGHTS: dict[str, Array] = {
    "first": normal(6, 8),
    "last": normal(8, 5),
    "back": normal(8, 6),
    "b8": normal(8),
    "b6": normal(6),
    "scale": normal(6, seed=7),
    "c1": normal(8, 4, 3, 3),
    "c2": normal(8, 4, 1, 1),
    "c3": normal(3, 8, 1, 1),
    "root2": np.float32(2**0.5),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "k1": np.float32(0.044715),
    "k2": np.float32(0.7978845608),
    "three": np.float32(3),
    "quick": np.float32(1.702),
    "axis": np.array([-1], np.int64),
    "eps": np.float32(1e-5),
    "two": np.float32(2),
    "words": normal(30, 6),
}

ROWS = "(float[N, 7, 6] x) => (float[N, 7, 5] y)"
CASES = {
    "FusedConv": (
        "(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y)",
        "a = Conv <pads = [1,1,1,1]> (x, c1, b8)  r = Relu (a)  y = Conv (r, c3)",
        {"c1": [4, 4, 3, 3], "b8": [4], "c3": [3, 4, 1, 1]},
    ),
    "FusedGemm": (
        "(float[N, 6] x) => (float[N, 5] y)",
        "a = Gemm (x, first, b8)  r = Relu (a)  y = Gemm (r, last)",
        {"first": [6, 4], "b8": [4], "last": [4, 5]},
    ),
    "FusedMatMul": (
        "(float[N, 6, 7] x) => (float[N, 7, 5] y)",
        """t = Transpose <perm = [0, 2, 1]> (x)  a = MatMul (t, first)  r = Relu (a)  m = Mul (r, half)
           y = MatMul (m, last)""",
        {"first": [6, 4], "last": [4, 5]},
    ),
    "BiasGelu": (
        ROWS,
        """m = MatMul (x, first)  a = Add (m, b8)  d = Div (a, root2)  e = Erf (d)  o = Add (e, one)  p = Mul (a, o)
           g = Mul (p, half)  y = MatMul (g, last)""",
        {"first": [6, 4], "b8": [4], "last": [4, 5]},
    ),
    "Gelu": (
        ROWS,
        """a = MatMul (x, first)  d = Div (a, root2)  e = Erf (d)  o = Add (e, one)  p = Mul (a, o)
           g = Mul (p, half)  y = MatMul (g, last)""",
        {"first": [6, 4], "last": [4, 5]},
    ),
    "FastGelu": (
        ROWS,
        """m = MatMul (x, first)  a = Add (m, b8)  q = Pow (a, three)  k = Mul (q, k1)  s = Add (a, k)  c = Mul (s, k2)
           t = Tanh (c)  o = Add (t, one)  h = Mul (a, half)  g = Mul (h, o)  y = MatMul (g, last)""",
        {"first": [6, 4], "b8": [4], "last": [4, 5]},
    ),
    "QuickGelu": (
        ROWS,
        "a = MatMul (x, first)  k = Mul (a, quick)  s = Sigmoid (k)  g = Mul (a, s)  y = MatMul (g, last)",
        {"first": [6, 4], "last": [4, 5]},
    ),
    "SkipLayerNormalization": (
        ROWS,
        """a = MatMul (x, first)  r = Relu (a)  b = MatMul (r, back)  s0 = Add (b, b6)  s = Add (s0, x)
           n = LayerNormalization <axis = -1> (s, scale, b6)  c = MatMul (n, first)  q = Relu (c)
           y = MatMul (q, last)""",
        {"back": [4, 6], "scale": [6], "b6": [6]},
    ),
    "SimplifiedLayerNormalization": (
        ROWS,
        """p = Pow (x, two)  m = ReduceMean <axes = [-1]> (p)  e = Add (m, eps)  q = Sqrt (e)  d = Div (x, q)
           n = Mul (d, scale)  c = MatMul (n, first)  r = Relu (c)  y = MatMul (r, last)""",
        {"first": [6, 4], "scale": [6], "last": [4, 5]},
    ),
}


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model as onnxruntime's extended optimisation leaves it."""
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_the_runtime_has_optimised_is_cut(case: str, tmp_path: Path) -> None:
    head, body, expected = CASES[case]
    plain = model_of(f"{head} {{ {body} }}", WEIGHTS)
    model = optimised(plain, tmp_path)
    assert case in [node.op_type for node in model.graph.node]
    space = analyze(model, mode="prune", strict=True)
    assert space.channels.count == analyze(plain, mode="prune").channels.count
    result = cut_half(model)
    left = sizes_of(result.compact)
    kept = {tuple(size) for size in left.values()}
    for size in expected.values():
        assert tuple(size) in kept or tuple(size[::-1]) in kept
    parameters = {name: tuple(sizes_of(model)[name]) for name in trainable_parameters(TraceGraph.of(model))}
    assert sorted(parameters.values()) == sorted(
        tuple(sizes_of(plain)[name]) for name in trainable_parameters(TraceGraph.of(plain))
    )


@pytest.mark.parametrize(("kind", "free"), [("Sigmoid", 0), ("HardSigmoid", 0), ("Tanh", 8), ("LeakyRelu", 8)])
def test_an_activation_inside_that_does_not_keep_zero_keeps_the_channels(kind: str, free: int) -> None:
    text = """(float[N, 6] x) => (float[N, 5] y) {
        a = com.microsoft.FusedGemm <activation = "%s", activation_alpha = 0.25, activation_beta = 0.5> (x, first, b8)
        y = MatMul (a, last)
    }"""
    model = model_of(text % kind, WEIGHTS, microsoft=1)
    assert analyze(model, mode="prune").channels.count == free
    if free:
        assert free_groups(cut_half(model)) == free


@pytest.mark.parametrize("kind", ["Relu", "Tanh"])
def test_a_convolution_with_a_sum_inside(kind: str) -> None:
    text = """(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) {
        b = Conv (x, c2)  q = Relu (b)
        r = com.microsoft.FusedConv <pads = [1, 1, 1, 1], activation = "%s"> (x, c1, b8, q)
        y = Conv (r, c3)
    }"""
    result = cut_half(model_of(text % kind, WEIGHTS, microsoft=1))
    assert free_groups(result) == 8
    sizes = sizes_of(result.compact)
    assert sizes == {"c1": [4, 4, 3, 3], "c2": [4, 4, 1, 1], "b8": [4], "c3": [3, 4, 1, 1]}


@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_products_of_turned_activations(turned: tuple[int, int]) -> None:
    text = """(float[N, 7, 6] x) => (float[N, 7, 7] y) {
        q = MatMul (x, first)  k = MatMul (x, first2)
        %s
        y = com.microsoft.FusedMatMul <alpha = 0.5, transA = %d, transB = %d> (l, r)
    }"""
    turns = "l = Transpose <perm = [0, 2, 1]> (q)  " if turned[0] else "l = Identity (q)  "
    turns += "r = Identity (k)" if turned[1] else "r = Transpose <perm = [0, 2, 1]> (k)"
    model = model_of(text % (turns, *turned), WEIGHTS | {"first2": normal(6, 8, seed=5)}, microsoft=1)
    result = cut_half(model)
    assert free_groups(result) == 8
    assert sizes_of(result.compact) == {"first": [6, 4], "first2": [6, 4]}


def test_embeddings_that_are_normalised_stay() -> None:
    text = """(int32[N, 7] ids) => (float[N, 7, 5] y) {
        e, m = com.microsoft.EmbedLayerNormalization (ids, , words, words, , scale, b6)
        c = MatMul (e, first)  r = Relu (c)  y = MatMul (r, last)
    }"""
    model = model_of(text, WEIGHTS, microsoft=1)
    result = cut_half(model)
    assert free_groups(result) == 8
    assert any(f.op_type == "EmbedLayerNormalization" and f.channels for f in result.space.frozen)
    assert "words" in trainable_parameters(TraceGraph.of(model))


def test_what_is_not_taken_apart_says_so() -> None:
    text = """(float[N, 6] x) => (float[N, 5] y) {
        a = MatMul (x, first)  s = com.microsoft.BiasSoftmax <axis = 1, is_inner_broadcast = 0> (a, b8)
        y = MatMul (s, last)
    }"""
    space = analyze(model_of(text, WEIGHTS, microsoft=1), mode="prune", strict=True)
    assert space.channels.count == 0
    assert any(f.reason == "BiasSoftmax is not taken apart" for f in space.frozen)


def test_dynamic_quantisation_that_the_runtime_has_fused(tmp_path: Path) -> None:
    text = """(float[N, 6] x) => (float[N, 5] y) {
        h = MatMul (x, first)  r = Relu (h)
        q, s, z = DynamicQuantizeLinear (r)
        i = MatMulInteger (q, wq, z, wz)  c = Cast <to = 1> (i)  t = Mul (s, ws)  k = Mul (c, t)
        b = Add (k, bias)  p = Relu (b)  y = MatMul (p, out)
    }"""
    random = np.random.default_rng(0)
    arrays = {
        "first": random.integers(-4, 4, (6, 8)).astype("f"),
        "wq": random.integers(-90, 90, (8, 6)).astype("int8"),
        "wz": np.int8(3),
        "ws": np.float32(2.0**-5),
        "bias": random.normal(size=6).astype("f"),
        "out": random.integers(-4, 4, (6, 5)).astype("f"),
    }
    model = optimised(model_of(text, arrays), tmp_path)
    assert {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"} & {node.op_type for node in model.graph.node}
    result = cut_half(model)
    assert free_groups(result) == 8 + 6
    sizes = list(sizes_of(result.compact).values())
    assert [6, 4] in sizes and [4, 3] in sizes and [3, 5] in sizes
