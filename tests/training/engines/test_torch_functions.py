"""Torch functions against the outputs that ONNX's own node tests expect, and the engine's options."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph import normalise
from onnx_asgnas.graph.runtime import run, session
from onnx_asgnas.training.engines.torch_engine import TORCH, TorchEngine
from onnx_asgnas.training.engines.torch_functions import TABLE, function_of
from onnx_asgnas.training.engines.torch_program import Program
from onnx_asgnas.training.lowering import lower

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

CPU = torch.device("cpu")
WIDE = (np.uint16, np.uint32, np.uint64)
"""Types that torch stores, and has few kernels for."""

RANDOM = "test_training_dropout"
"""Tests whose outputs are numpy's random numbers; dropout is off in normal form."""


@cache
def cases() -> dict[str, Any]:
    """The node tests of one operator that has a function, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    alone = {c.name: c for c in found if len(c.model.graph.node) == 1 and not c.name.startswith(RANDOM)}
    return {name: c for name, c in alone.items() if function_of(c.model.graph.node[0]) is not None}


def arrays(values: Any) -> list[Any]:
    return [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def is_plain(value: Any) -> bool:
    return value.dtype.kind in "fiub" and value.dtype not in (np.float16, *WIDE) and value.dtype.isbuiltin == 1


def test_functions_give_what_the_node_tests_expect() -> None:
    failed, seen = [], set()
    for name, case in cases().items():
        for inputs, outputs in case.data_sets:
            given, wanted = arrays(inputs), arrays(outputs)
            if not all(isinstance(value, np.ndarray | np.generic) and is_plain(value) for value in (*given, *wanted)):
                continue
            seen.add(case.model.graph.node[0].op_type)
            try:
                program = Program(case.model, (), device=CPU)
                found = program([torch.from_numpy(np.array(value)) for value in given])
                for mine, value in zip(found, wanted, strict=True):
                    assert tuple(mine.shape) == value.shape
                    np.testing.assert_allclose(mine.numpy(), value, rtol=1e-3, atol=1e-5)
                    assert mine.numpy().dtype == value.dtype
            except Exception as error:
                failed.append((name, str(error).strip()[:150]))
    assert len(seen) > 100
    assert {op for _, op in TABLE} - seen <= {
        "Detach",
        "GRU",
        "LayerNormalization",
    }  # tested apart, or only in other forms
    assert failed == [], "\n".join(map(str, failed))


RECURRENT = [
    ("LSTM", 4, {}),
    ("LSTM", 4, {"direction": "reverse"}),
    ("LSTM", 4, {"direction": "bidirectional"}),
    ("GRU", 3, {"linear_before_reset": 1}),
    ("GRU", 3, {"linear_before_reset": 1, "direction": "bidirectional"}),
    ("RNN", 1, {}),
    ("RNN", 1, {"direction": "reverse", "activations": ["Relu"]}),
]


@pytest.mark.parametrize(("kind", "gates", "attributes"), RECURRENT)
def test_recurrent_layers_are_those_of_onnxruntime(kind: str, gates: int, attributes: dict[str, Any]) -> None:
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    random = np.random.default_rng(0)
    shapes = {
        "x": (5, 2, 3),
        "w": (directions, gates * 4, 3),
        "r": (directions, gates * 4, 4),
        "b": (directions, gates * 8),
        "h": (directions, 2, 4),
    }
    values = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    outputs = ["y", "y_h", "y_c"][: 3 if kind == "LSTM" else 2]
    node = onnx.helper.make_node(kind, ["x", "w", "r", "b", "", "h"], outputs, hidden_size=4, **attributes)
    kinds = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs]
    graph = onnx.helper.make_graph([node], "g", kinds, ends)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    wanted = run(session(model), values)
    found = Program(model, (), device=CPU)([torch.from_numpy(value) for value in values.values()])
    for name, mine in zip(outputs, found, strict=True):
        np.testing.assert_allclose(mine.numpy(), wanted[name], rtol=1e-4, atol=1e-5)


def test_dead_values_are_let_go_and_what_nothing_computes_is_refused() -> None:
    text = "g (float[N] x) => (float[N] y) { a = Exp(x) b = Exp(a) y = Exp(b) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    steps = Program(model, (), device=CPU)._steps
    assert [len(step.dead) for step in steps] == [0, 1, 1]
    model.graph.node[1].domain = "acme"
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    with pytest.raises(UnsupportedOperatorError, match="Exp"):
        Program(model, (), device=CPU)


def test_an_output_that_is_left_out_is_no_input_of_others() -> None:
    text = "g (float[N] x) => (float[M] y, float[N] z) { y, rest = Split<axis=0>(x) z = Clip(x) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    model.graph.node[0].output[1] = ""
    model.graph.node[1].input[:] = ["x", "", ""]
    x = torch.arange(4.0)
    y, z = Program(model, (), device=CPU)([x])
    assert torch.equal(y, x[:2])
    assert torch.equal(z, x)


def test_a_product_and_its_bias_are_one_call() -> None:
    text = """g (float[N,2,3] x, float[3,4] w, float[4] b, float[1] c) => (float[N,2,4] y, float[N,2,4] z) {
        h = MatMul(x, w) y = Add(b, h) k = MatMul(x, w) z = Add(k, c) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    program = Program(model, (), device=CPU)
    assert [step.node.op_type for step in program._steps] == ["Add", "MatMul", "Add"]
    x, w, b, c = torch.randn(5, 2, 3), torch.randn(3, 4), torch.randn(4), torch.randn(1)
    y, z = program([x, w, b, c])
    torch.testing.assert_close(y, x @ w + b)
    torch.testing.assert_close(z, x @ w + c)


def test_float64_is_exact() -> None:
    text = "g (float[N,3] x) => (float[N,2] y) { c = Cast<to=1>(x) h = MatMul(c, W) y = Gelu(h) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 20]> {text}')
    weight = torch.randn(3, 2)
    model.graph.initializer.append(numpy_helper.from_array(weight.numpy(), "W"))
    graph = lower(normalise(model), ["W"], dialect=TORCH)
    engine = TorchEngine(graph, {"W": weight}, floats=torch.float64)
    x = torch.randn(4, 3)
    (y,), waiting = engine.forward([x])
    (found,) = waiting.backward([torch.ones_like(y)])
    leaf = weight.double().requires_grad_()
    wanted = torch.nn.functional.gelu(x.double() @ leaf)
    torch.testing.assert_close(y, wanted.detach(), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(found, torch.autograd.grad(wanted.sum(), leaf)[0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [{"channels_last": True}, {"autocast": "bf16"}, {"device": "cpu:0"}],
    ids=lambda options: next(iter(options)),
)
def test_options_change_the_numbers_little(options: dict[str, Any]) -> None:
    text = """g (float[N,3,8,8] x) => (float[N,4] y) {
        h = Conv<pads=[1, 1, 1, 1]>(x, W) r = Relu(h) p = GlobalAveragePool(r) y = Flatten(p) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 20]> {text}')
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    model.graph.initializer.append(numpy_helper.from_array(weight.numpy(), "W"))
    graph = lower(normalise(model), ["W"], dialect=TORCH)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    results = []
    for chosen in ({}, options):
        engine = TorchEngine(graph, {"W": weight}, EngineOptions(engine="torch", **chosen))
        (y,), waiting = engine.forward([x])
        assert y.dtype == torch.float32
        results.append((y, *waiting.backward([torch.ones_like(y)])))
    for plain, other in zip(*results, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, plain, rtol=3e-2, atol=3e-2 * float(plain.abs().max()))


def test_compilation_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def compiling(program: Program) -> Any:
        def fail(_: Any) -> Any:
            raise TypeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", compiling)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 20]> g (float[N,3] x) => (float[N,2] y) { y = MatMul(x, W) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 2), np.float32), "W"))
    graph = lower(normalise(model), ["W"], dialect=TORCH)
    engine = TorchEngine(graph, {"W": torch.ones(3, 2)}, EngineOptions(engine="torch", compile=True))
    with caplog.at_level("WARNING", "onnx_asgnas"):
        for _ in range(2):
            assert torch.equal(engine.forward([torch.ones(1, 3)])[0][0], torch.full((1, 2), 3.0))
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile fails, the network runs uncompiled: no compiler here"
    ]
