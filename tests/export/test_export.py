"""A model as a PyTorch module: one class for what repeats, readable names, equal outputs, and it trains."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.cli import main
from onnx_asgnas.errors import UnsupportedOperatorError, VerificationError
from onnx_asgnas.export import Export, checking, export_torch
from onnx_asgnas.export.checking import load_network
from onnx_asgnas.graph import TraceGraph, save_model
from tests.made_up import graph, network
from tests.random_channels import channel_networks
from tests.random_graphs import networks

QUIET = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def weights(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """The model with random initializers of these shapes; two underscores are a point, which ONNX text cannot have."""
    random = np.random.default_rng(0)
    for node in model.graph.node:
        names = [name.replace("__", ".") for name in node.input]
        del node.input[:]
        node.input.extend(names)
    for name, shape in shapes.items():
        values = random.uniform(0.2, 1.0, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name.replace("__", ".")))
    return model


def residual_network(widths: tuple[int, ...], style: str = "names") -> onnx.ModelProto:
    """Blocks conv1, bn1, relu, conv2 around a skip, as exporters write them: with named nodes, or weights alone."""
    random = np.random.default_rng(0)
    nodes, held, data = [], [], "x"

    def add(op_type: str, scope: str, inputs: list[str], **attributes: Any) -> str:
        output = f"t{len(nodes)}"
        name = f"/blocks/blocks.{scope}/{op_type}" if style == "names" else f"n{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def weight(name: str, *shape: int) -> str:
        held.append(numpy_helper.from_array(random.uniform(0.1, 0.5, shape).astype(np.float32), f"blocks.{name}"))
        return f"blocks.{name}"

    for at, width in enumerate(widths):
        y = add("Conv", f"{at}/conv1", [data, weight(f"{at}.conv1.weight", width, 4, 3, 3)], pads=[1, 1, 1, 1])
        names = ("weight", "bias", "running_mean", "running_var")
        y = add("BatchNormalization", f"{at}/bn1", [y, *(weight(f"{at}.bn1.{name}", width) for name in names)])
        y = add("Relu", f"{at}/relu", [y])
        y = add("Conv", f"{at}/conv2", [y, weight(f"{at}.conv2.weight", 4, width, 1, 1)])
        data = add("Add", str(at), [y, data])
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8, 8])]
    made = [helper.make_tensor_value_info(data, TensorProto.FLOAT, None)]
    return helper.make_model(
        helper.make_graph(nodes, "residual", given, made, held),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def classes(written: Export) -> list[str]:
    return [node.name for node in ast.parse(written.code.read_text()).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("style", ["names", "weights"])
def test_blocks_of_one_form_become_one_class_with_their_widths(style: str, tmp_path: Path) -> None:
    written = export_torch(residual_network((3, 5, 5), style), tmp_path / "net.py")
    assert len(classes(written)) == 2
    text = written.code.read_text()
    assert text.count("nn.Conv2d(") == 2
    assert "conv1_out=3" in text
    assert text.count("conv1_out=5") == 2
    state = load_network(written.code).state_dict()
    assert "blocks.1.bn1.running_mean" in state or "blocks_1.bn1.running_mean" in state


def test_code_is_formatted_and_stands_alone(tmp_path: Path) -> None:
    written = export_torch(network(tmp_path), tmp_path / "unets.py")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", str(written.code)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(written.code.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported <= {"pathlib", "torch", "torch.nn.functional", "safetensors.torch"}
    assert written.agreement.largest <= 1e-5
    assert written.agreement.batches == (1, 3)


def test_it_trains(tmp_path: Path) -> None:
    written = export_torch(residual_network((3, 5)), tmp_path / "net.py")
    module = load_network(written.code).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(3):
        loss = module(x).square().mean()
        parameters = list(module.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 1e-3 * gradient
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(not torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_product_and_its_bias_are_a_linear_layer(tmp_path: Path) -> None:
    model = graph("(float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, fc__w) y = Add(fc__b, a) }")
    written = export_torch(weights(model, fc__w=(4, 3), fc__b=(3,)), tmp_path)
    assert "nn.Linear(4, 3)" in written.code.read_text()


def test_activations_that_exporters_take_apart_are_whole(tmp_path: Path) -> None:
    model = graph(
        """(float[N, 4] x) => (float[N, 4] y) <float root = {1.4142135}, float one = {1}, float half = {0.5}> {
            s = Sigmoid(x) a = Mul(x, s) d = Div(a, root) e = Erf(d) p = Add(e, one) m = Mul(a, p) y = Mul(m, half)
        }"""
    )
    text = export_torch(model, tmp_path / "net.py").code.read_text()
    assert "return F.gelu(F.silu(x))" in text


def test_open_lengths_stay_open(tmp_path: Path) -> None:
    model = graph(
        """(int64[N, L] ids) => (float[N, M, 6] y) <int64[1] rest = {-1}, int64[1] six = {6}, int64 zero = {0}> {
            e = Gather(wte__weight, ids) s = Shape(e) n = Gather(s, zero) axis = Constant<value_ints = [0]>()
            u = Unsqueeze(n, axis) t = Concat<axis = 0>(u, rest, six) y = Reshape(e, t)
        }"""
    )
    written = export_torch(weights(model, wte__weight=(10, 6)), tmp_path / "net.py")
    module = load_network(written.code)
    assert module(torch.zeros(2, 7, dtype=torch.int64)).shape == (2, 7, 6)
    assert module(torch.zeros(5, 3, dtype=torch.int64)).shape == (5, 3, 6)
    assert "wte.weight" in module.state_dict()


def test_what_grows_by_joining_is_joined_once_a_step(tmp_path: Path) -> None:
    model = graph(
        """(float[N, 2] x) => (float[N, 14] d) {
            a = Relu(x) b = Concat<axis = 1>(x, a) s = Tanh(b)
            c = Concat<axis = 1>(x, a, s) t = Relu(c) d = Concat<axis = 1>(x, a, s, t)
        }"""
    )
    text = export_torch(model, tmp_path / "net.py").code.read_text()
    assert text.count("torch.cat(") == 3
    assert text.count(", 1)") == 3
    assert "F.relu(x)), 1)" in text


def test_lengths_that_are_given_out_are_tensors(tmp_path: Path) -> None:
    model = graph("(float[N, 4] x) => (int64[2] s, float[N, 4] y) { s = Shape(x) y = Relu(x) }")
    module = load_network(export_torch(model, tmp_path / "net.py").code)
    shape, _ = module(torch.zeros(3, 4))
    assert shape.tolist() == [3, 4]


def test_half_precision_keeps_its_type(tmp_path: Path) -> None:
    model = graph("(float16[N, 4] x) => (float16[N, 3] y) { y = MatMul(x, fc__weight) }")
    values = np.linspace(-1, 1, 12, dtype=np.float16).reshape(4, 3)
    model.graph.initializer.append(numpy_helper.from_array(values, "fc.weight"))
    module = load_network(export_torch(weights(model), tmp_path / "net.py").code)
    assert module.fc.weight.dtype == torch.float16


def test_weights_that_are_shared_stay_one(tmp_path: Path) -> None:
    model = graph("(float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, tied) b = Relu(a) y = MatMul(b, tied) }")
    module = load_network(export_torch(weights(model, tied=(4, 4)), tmp_path / "net.py").code)
    assert [name for name, _ in module.named_parameters()] == ["tied"]


def test_names_are_never_code(tmp_path: Path) -> None:
    hostile = 'x"""\nimport os; os.abort()  # {} \\'
    node = helper.make_node("MatMul", [hostile, "class.{}.weight"], ["y\n'"], name="/import os/__init__/for.0/forward")
    wide = helper.make_node("Add", ["y\n'", "train"], ["out{0}"], name="/import os/__init__/for.0/Add")
    held = [
        numpy_helper.from_array(np.ones((3, 3), np.float32), "class.{}.weight"),
        numpy_helper.from_array(np.ones((3, 3), np.float32), "train"),
    ]
    given = [helper.make_tensor_value_info(hostile, TensorProto.FLOAT, [3, 3])]
    made = [helper.make_tensor_value_info("out{0}", TensorProto.FLOAT, [3, 3])]
    model = helper.make_model(
        helper.make_graph([node, wide], '"""', given, made, held),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    written = export_torch(model, tmp_path / "net.py")
    assert "abort()" not in ast.unparse(_without_docstrings(written.code.read_text()))
    assert callable(load_network(written.code).train)


def _without_docstrings(text: str) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def test_an_unknown_operator_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    model = graph("(float[N, 1, 8] x) => (float[N, 1, 8] y) { y = Hardmax(x) }")
    with pytest.raises(UnsupportedOperatorError, match="Hardmax") as caught:
        export_torch(model, tmp_path / "net.py")
    assert caught.value.op_type == "Hardmax"
    assert not any(tmp_path.iterdir())


def test_a_wrong_network_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_TOLERANCE", -1.0)
    with pytest.raises(VerificationError):
        export_torch(residual_network((3,)), tmp_path / "net.py")
    assert not any(tmp_path.iterdir())


@QUIET
@given(model=networks())
def test_random_convolutional_networks(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert export_torch(model, tmp_path_factory.mktemp("net") / "net.py").agreement.largest <= 1e-5


@QUIET
@given(model=channel_networks())
def test_random_networks_of_all_families(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert export_torch(model, tmp_path_factory.mktemp("net") / "net.py").agreement.largest <= 1e-5


def test_external_data_is_found_by_the_path(tmp_path: Path) -> None:
    model = weights(graph("(float[N, 40] x) => (float[N, 30] y) { y = MatMul(x, big__weight) }"), big__weight=(40, 30))
    save_model(model, tmp_path / "model.onnx", external_data=True)
    written = export_torch(tmp_path / "model.onnx", tmp_path / "out")
    assert written.code == tmp_path / "out" / "model.py"
    assert written.weights == tmp_path / "out" / "model.safetensors"
    assert TraceGraph.of(tmp_path / "model.onnx").outputs == ("y",)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(residual_network((3, 5)), tmp_path / "net.onnx")
    assert main(["export", str(tmp_path / "net.onnx"), "--to", "torch", "-o", str(tmp_path / "net.py")]) == 0
    assert "relative difference" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "net.onnx"), "--to", "keras", "-o", str(tmp_path / "net.py")]) == 2
