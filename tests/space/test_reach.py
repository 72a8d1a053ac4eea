"""Validity in numbers: a class token that no image reaches any more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_asgnas.config import Target
from onnx_asgnas.errors import TargetError
from onnx_asgnas.space import SearchSpace, analyze

TRANSFORMER = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 4] x) => (float[N, 2] y) <int64[1] one = {1}, int64[2] rest = {1, 4}, int64 first = {0}> {
    d = Shape (x)  n = Slice (d, zero, one)  s = Concat <axis = 0> (n, rest)  c = Expand (class, s)
    t = Concat <axis = 1> (c, x)
    q = MatMul (t, wq)  k = MatMul (t, wk)  v = MatMul (t, wv)  l = Transpose <perm = [0, 2, 1]> (k)
    p = MatMul (q, l)  a = Softmax <axis = -1> (p)  m = MatMul (a, v)  o = MatMul (m, wo)  r = Add (t, o)
    h = MatMul (r, w1)  g = Relu (h)  f = MatMul (g, w2)  u = Add (r, f)
    e = Gather <axis = 1> (u, first)  y = MatMul (e, head)
}"""


def transformer() -> onnx.ModelProto:
    """One block over a class token and three others, of which the head reads the class token."""
    model = parser.parse_model(TRANSFORMER)
    random = np.random.default_rng(0)
    shapes = dict.fromkeys(("wq", "wk", "wv", "wo", "w1", "w2"), (4, 4)) | {"head": (4, 2), "class": (1, 1, 4)}
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    return model


def chosen(space: SearchSpace, first: str, count: int) -> list[str]:
    """What is chosen when this structure is the most redundant."""
    ranks = np.array([1.0 if s.tensor == first else 0.0 for s in space.candidates])
    found = space.choose(lambda taken: ranks, Target(remove_groups=count))
    return [space.candidates[index].tensor for index in found.chosen]


def test_attention_stays_where_the_class_token_reads_the_image_by_it() -> None:
    space = analyze(transformer())
    assert {"o", "f"} <= {s.tensor for s in space.candidates}
    assert chosen(space, "o", 1) == ["f"]
    assert space.reach.first_lost([i for i, s in enumerate(space.candidates) if s.tensor == "f"]) is None


def test_a_target_that_would_take_it_is_refused() -> None:
    with pytest.raises(TargetError, match="at most 1"):
        chosen(analyze(transformer()), "f", 2)


def test_without_the_hierarchy_nobody_asks() -> None:
    space = analyze(transformer())
    ranks = np.array([1.0 if s.tensor == "o" else 0.0 for s in space.candidates])
    found = space.choose(lambda taken: ranks, Target(remove_groups=1), hierarchy=False)
    assert space.candidates[found.chosen[0]].tensor == "o"


def test_in_a_mean_over_all_tokens_it_may_leave() -> None:
    model = transformer()
    model.graph.node[-2].CopyFrom(onnx.helper.make_node("ReduceMean", ["u"], ["e"], axes=[1], keepdims=0))
    assert chosen(analyze(model), "o", 1) == ["o"]
