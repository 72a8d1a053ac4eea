"""What onnxruntime's optimiser makes of several operators: forward as by the runtime, gradients as by differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph.packages import import_onnxruntime
from onnx_asgnas.training.engines.ort_engine import OrtEngine
from onnx_asgnas.training.lowering import lower

_STEP = 1e-2
_GENERATOR = np.random.default_rng(0)


@dataclass(frozen=True, kw_only=True)
class Fused:
    """An operator of the runtime, the shapes of its float inputs (None: left out), and its other inputs by place."""

    shapes: Sequence[tuple[int, ...] | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[int, Any] = field(default_factory=dict)
    outputs: int = 1


ROWS = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
IDS = np.array([[0, 2, 1, 3], [1, 0, 3, 2]], np.int32)
X, BIAS = (2, 4, 6), (6,)

CASES = {
    "Gelu": Fused(shapes=[X]),
    "BiasGelu": Fused(shapes=[X, BIAS]),
    "FastGelu": Fused(shapes=[X, BIAS]),
    "FastGelu without a bias": Fused(shapes=[X]),
    "QuickGelu": Fused(shapes=[X], attributes={"alpha": 1.5}),
    "FusedMatMul": Fused(shapes=[(2, 4, 6), (2, 5, 6)], attributes={"transB": 1, "alpha": 0.5}),
    "FusedMatMul of a transposed one": Fused(shapes=[(2, 6, 4), (6, 5)], attributes={"transA": 1}),
    "FusedGemm": Fused(
        shapes=[(3, 4), (5, 4), (5,)],
        attributes={"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.2},
    ),
    "FusedConv": Fused(
        shapes=[(1, 2, 5, 5), (3, 2, 3, 3), (3,)],
        attributes={"pads": [1, 1, 1, 1], "activation": "Tanh"},
    ),
    "FusedConv with a sum": Fused(
        shapes=[(1, 2, 5, 5), (3, 2, 3, 3), (3,), (1, 3, 5, 5)],
        attributes={"pads": [1, 1, 1, 1], "activation": "Sigmoid"},
    ),
    "SkipLayerNormalization": Fused(shapes=[X, X, BIAS, BIAS, BIAS]),
    "SkipSimplifiedLayerNormalization": Fused(shapes=[X, X, BIAS]),  # with a bias, this runtime forgets it
    "SimplifiedLayerNormalization": Fused(shapes=[X, BIAS], attributes={"axis": -1}),
    "EmbedLayerNormalization": Fused(
        shapes=[None, None, (5, 6), (4, 6), (2, 6), BIAS, BIAS, None],
        fixed={0: IDS, 1: np.array([[0, 0, 1, 1]] * 2, np.int32), 7: ROWS},
        outputs=2,
    ),
    "Attention": Fused(shapes=[X, (6, 18), (18,)], attributes={"num_heads": 2}),
    "Attention that is causal": Fused(shapes=[X, (6, 18), (18,)], attributes={"num_heads": 3, "unidirectional": 1}),
    "Attention with padding": Fused(shapes=[X, (6, 18), (18,), None], attributes={"num_heads": 2}, fixed={3: ROWS}),
    "Attention with lengths": Fused(
        shapes=[X, (6, 18), (18,), None], attributes={"num_heads": 2}, fixed={3: np.array([3, 2], np.int32)}
    ),
    "MultiHeadAttention": Fused(shapes=[X, (2, 5, 6), (2, 5, 6)], attributes={"num_heads": 2}),
    "MultiHeadAttention with a bias": Fused(
        shapes=[X, (2, 5, 6), (2, 5, 6), (18,), None, (2, 2, 4, 5)], attributes={"num_heads": 2}
    ),
    "GroupQueryAttention": Fused(
        shapes=[(2, 4, 32), (2, 4, 16), (2, 4, 16)],
        attributes={"num_heads": 4, "kv_num_heads": 2},
        fixed={5: np.array([3, 3], np.int32), 6: np.array(4, np.int32)},
        outputs=3,
    ),
    "RotaryEmbedding": Fused(
        shapes=[(2, 2, 4, 8), None, None, None],
        fixed={
            1: np.tile(np.arange(4), (2, 1)),
            2: np.cos(_GENERATOR.normal(size=(6, 4))).astype(np.float32),
            3: np.sin(_GENERATOR.normal(size=(6, 4))).astype(np.float32),
        },
    ),
    "RotaryEmbedding by pairs": Fused(
        shapes=[(2, 4, 16), None, None, None],
        attributes={"interleaved": 1},
        fixed={
            1: np.array([1], np.int64),
            2: np.cos(_GENERATOR.normal(size=(6, 4))).astype(np.float32),
            3: np.sin(_GENERATOR.normal(size=(6, 4))).astype(np.float32),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_runtime_operator_trains(name: str) -> None:
    case, op_type = CASES[name], name.partition(" ")[0]
    model = _model(op_type, case)
    graph = lower(model, [], wrt=[value.name for value in model.graph.input])
    assert {node.domain for node in graph.model.graph.node} <= {"", "onnx_asgnas"}
    rng = np.random.default_rng(1)
    values = {
        f"x{at}": rng.normal(size=shape).astype(np.float32) for at, shape in enumerate(case.shapes) if shape is not None
    }
    outputs, run = OrtEngine(graph, {}, threads=1).forward([torch.from_numpy(values[n]) for n in graph.inputs])
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for mine, theirs in zip(outputs, session.run(None, values), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=2e-5, atol=2e-5)
    weights = [torch.from_numpy(rng.normal(size=tuple(o.shape)).astype(np.float32)) for o in outputs]
    found = run.backward([w if o.is_floating_point() else None for w, o in zip(weights, outputs, strict=True)])
    gradients = dict(zip(graph.wrt, found, strict=True))
    assert gradients.keys() == values.keys()

    def at(step: float) -> float:
        moved = {n: v + np.float32(step) * direction[n] for n, v in values.items()}
        made = session.run(None, moved)
        return sum(float((o.astype(np.float64) * w.numpy()).sum()) for o, w in zip(made, weights, strict=True))

    for _ in range(2):
        direction = {n: rng.normal(size=v.shape).astype(np.float32) for n, v in values.items()}
        near, far = ((at(step) - at(-step)) / (2 * step) for step in (_STEP, 2 * _STEP))
        slope = (4 * near - far) / 3
        mine = sum(float((gradients[n].numpy().astype(np.float64) * direction[n]).sum()) for n in values)
        size = sum(float(np.abs(gradients[n].numpy() * direction[n]).sum()) for n in values)
        assert abs(mine - slope) <= 1e-3 * max(abs(slope), 0.1 * size)


def _model(op_type: str, case: Fused) -> Any:
    count = max([len(case.shapes), *(at + 1 for at in case.fixed)])
    shapes = [*case.shapes, *[None] * (count - len(case.shapes))]
    names = [f"x{at}" if shapes[at] is not None or at in case.fixed else "" for at in range(count)]
    domain = "" if op_type == "SimplifiedLayerNormalization" else "com.microsoft"
    made = [f"y{at}" for at in range(case.outputs)]
    node = helper.make_node(op_type, names, made, name="n", domain=domain, **case.attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True) if s],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in made[:1]],
        [numpy_helper.from_array(np.asarray(value), f"x{at}") for at, value in case.fixed.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_what_a_cache_reads_is_refused() -> None:
    case = Fused(
        shapes=[X, (2, 4, 6), (2, 4, 6), None, None, None, (2, 2, 3, 3), (2, 2, 3, 3)], attributes={"num_heads": 2}
    )
    with pytest.raises(UnsupportedOperatorError, match="it reads a cache of keys and values"):
        lower(_model("MultiHeadAttention", case), [], wrt=["x0"])
