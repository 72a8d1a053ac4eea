"""If, Loop and Scan: what their subgraphs read stays, with a reason that names them; all else leaves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_asgnas.space import analyze
from tests.operators.cutting import cut_half, free_groups, model_of, normal, reasons_of, sizes_of

WEIGHTS = {
    "first": normal(4, 8),
    "held": normal(8, 8),
    "last": normal(8, 3),
    "b": normal(8),
    "yes": np.array(True),
    "three": np.array(3, np.int64),
    "limit": np.float32(0),
}


def test_what_a_branch_captures_stays_and_the_rest_leaves() -> None:
    text = """(float[N, 4] x) => (float[N, 3] y) {
        h = MatMul (x, first)  r = Relu (h)
        m = ReduceMax <keepdims = 0> (x)  c = Greater (m, limit)
        o = If (c) <
            then_branch = t () => (float[N, 8] a) { a0 = MatMul (r, held)  a = Add (a0, b) },
            else_branch = e () => (float[N, 8] d) { d = Neg (r) }
        >
        q = MatMul (o, held2)  p = Relu (q)  y = MatMul (p, last)
    }"""
    result = cut_half(model_of(text, WEIGHTS | {"held2": normal(8, 8, seed=4)}))
    assert free_groups(result) == 8
    sizes = sizes_of(result.compact)
    assert sizes["first"] == [4, 8] and sizes["held"] == [8, 8] and sizes["b"] == [8]
    assert sizes["held2"] == [8, 4] and sizes["last"] == [4, 3]
    assert any(op == "If" and "the subgraph of If" in reason for op, reason in reasons_of(result))


@pytest.mark.parametrize("shared", ["held", "b"])
def test_a_weight_that_a_branch_captures_stays_everywhere(shared: str) -> None:
    inner = {"held": "MatMul (x8, held)", "b": "Add (x8, b)"}[shared]
    outer = {"held": "MatMul (r, held)", "b": "Add (r, b)"}[shared]
    text = f"""(float[N, 4] x, float[N, 8] x8) => (float[N, 3] y, float[N, 8] z) {{
        h = MatMul (x, first)  r = Relu (h)  g = {outer}  k = Relu (g)  y = MatMul (k, last)
        m = ReduceMax <keepdims = 0> (x)  c = Greater (m, limit)
        z = If (c) <
            then_branch = t () => (float[N, 8] a) {{ a = {inner} }},
            else_branch = e () => (float[N, 8] d) {{ d = Neg (x8) }}
        >
    }}"""
    space = analyze(model_of(text, WEIGHTS), mode="prune", strict=True)
    assert space.channels.count == 0
    assert any(f"reads '{shared}' as it is" in f.reason and f.op_type == "If" for f in space.frozen)


def test_what_a_loop_carries_stays() -> None:
    text = """(float[N, 4] x) => (float[N, 3] y) {
        h = MatMul (x, first)
        o = Loop (three, yes, h) <body = loop (int64 i, bool go, float[N, 8] a) => (bool more, float[N, 8] s) {
            more = Identity (go)  s = Tanh (a)
        }>
        q = MatMul (o, held)  p = Relu (q)  y = MatMul (p, last)
    }"""
    model = model_of(text, WEIGHTS)
    stated = onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, ["N", 8])
    model.graph.value_info.append(stated)  # of what a loop carries the shape may change, so nothing infers it
    result = cut_half(model)
    assert free_groups(result) == 8
    assert sizes_of(result.compact) == {
        "first": [4, 8],
        "held": [8, 4],
        "last": [4, 3],
        "yes": [],
        "three": [],
    }
    assert any(op == "Loop" and "the subgraph of Loop" in reason for op, reason in reasons_of(result))
    assert not result.space.unknown


def test_what_a_scan_runs_over_stays() -> None:
    text = """(float[5, 4] x) => (float[5, 3] y) {
        h = MatMul (x, first)
        f, o = Scan <num_scan_inputs = 1, body = step (float[8] s, float[8] a) => (float[8] n, float[8] out) {
            n = Add (s, a)  out = Tanh (n)
        }> (b, h)
        q = MatMul (o, held)  p = Relu (q)  y = MatMul (p, last)
    }"""
    result = cut_half(model_of(text, WEIGHTS))
    assert free_groups(result) == 8
    assert sizes_of(result.compact)["held"] == [8, 4]
    assert any(op == "Scan" and "the subgraph of Scan" in reason for op, reason in reasons_of(result))
