"""Gates on parameter-free operands: where they are put, that nothing changes, and that removal with them is exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from onnx_asgnas import models
from onnx_asgnas.config import Mode, Target
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.gates import KEY, gates_of, name_gates
from onnx_asgnas.operators import trainable_parameters
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import analyze
from onnx_asgnas.space.gates import add_gates
from onnx_asgnas.surgery import construct
from onnx_asgnas.training.bridge import OnnxModule
from tests.models.test_systems import SMALL, randomised
from tests.random_graphs import difference, networks, outputs_of, valid_choice, zeroed


def parsed(body: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A network on x [N, 4, 6, 6] with random weights of these shapes."""
    text = f'<ir_version: 8, opset_import: ["": 17]> net (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ {body} }}'
    model = parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        values = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def with_random_gates(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The model with gates, of values of either sign."""
    random = np.random.default_rng(seed)
    gated = add_gates(model)
    gates = gates_of(gated)
    for tensor in gated.graph.initializer:
        if tensor.name in gates:
            value = random.uniform(0.3, 2, 1) * random.choice([-1, 1])
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    return gated


def sources(model: onnx.ModelProto) -> dict[str, list[str]]:
    """What every node reads of activations, by the name of its output."""
    weights = {t.name for t in model.graph.initializer}
    return {node.output[0]: [n for n in node.input if n not in weights] for node in model.graph.node}


def test_a_skip_connection_is_gated_on_its_edge_alone() -> None:
    model = parsed(
        "a = Conv(x, w)  b = Conv(a, v)  s = Add(a, b)  y = Conv(s, u)", w=(4, 4, 1, 1), v=(4, 4, 1, 1), u=(4, 4, 1, 1)
    )
    gated = add_gates(model)
    assert gates_of(gated) == {"a.to.s.gate"}
    assert sources(gated)["s"] == ["a.to.s", "b"]
    assert sources(gated)["b"] == ["a"]
    assert [s.tensor for s in analyze(gated).candidates] == ["b", "a.to.s"]
    assert trainable_parameters(TraceGraph.of(gated)) == ("w", "v", "a.to.s.gate", "u")


def test_a_pooling_that_several_joints_read_gets_a_gate_for_each() -> None:
    model = parsed(
        "a = Conv(x, w)  p = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (a)  c = Conv(a, v)"
        "  s = Add(p, c)  d = Conv(s, u)  t = Add(d, p)  y = Conv(t, z)",
        **dict.fromkeys("wvuz", (4, 4, 1, 1)),
    )
    gated = add_gates(model)
    assert gates_of(gated) == {"p.to.s.gate", "p.to.t.gate"}
    assert {s.tensor for s in analyze(gated).candidates} == {"p.to.s", "c", "d", "p.to.t"}
    result = cut(with_random_gates(model), Target(remove_groups=2), mode="erase", criterion="random", seed=1)
    assert result.verify().passed


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv(x, w)  b = Conv(x, v)  y = Add(a, b)",  # both have their own
        "a = Conv(x, w)  b = Sigmoid(a)  c = Conv(x, v)  y = Add(b, c)",  # not zero, but not parameter-free
        "a = Conv(x, w)  y = Mul(a, x)",  # a product is no joint
        "a = Conv(x, w)  y = Add(a, v)",  # a bias
    ],
)
def test_other_operands_get_none(body: str) -> None:
    model = parsed(body, w=(4, 4, 1, 1), v=(4, 4, 1, 1))
    if "Add(a, v)" in body:
        model = parsed(body, w=(4, 4, 1, 1), v=(4, 1, 1))
    assert gates_of(add_gates(model)) == frozenset()


def test_an_operand_of_another_shape_gets_none() -> None:
    """Without x the sum would have the shape of the pooled branch."""
    model = parsed(
        "p = GlobalAveragePool(x)  a = Conv(p, w)  s = Add(x, a)  y = Conv(s, v)", w=(4, 4, 1, 1), v=(4, 4, 1, 1)
    )
    assert gates_of(add_gates(model)) == frozenset()


def test_the_input_of_the_network_can_be_gated() -> None:
    model = parsed("a = Conv(x, w)  s = Add(x, a)  y = Conv(s, v)", w=(4, 4, 1, 1), v=(4, 4, 1, 1))
    assert gates_of(add_gates(model)) == {"x.to.s.gate"}


@pytest.mark.parametrize("source", [*SMALL.values(), "stackedunets?width=2", "demosupnet?width=2"])
def test_the_outputs_stay_to_the_bit(source: str) -> None:
    model = models.parse(source)
    gated = add_gates(model)
    assert difference(outputs_of(model), outputs_of(gated)) == 0
    onnx.checker.check_model(gated, full_check=True)


def test_a_second_time_nothing_is_added() -> None:
    once = add_gates(models.build("stackedunets", width=2))
    assert len(gates_of(once)) == 6
    assert add_gates(once).SerializeToString() == once.SerializeToString()


def test_the_source_is_left_alone() -> None:
    model = models.build("stackedunets", width=2)
    before = model.SerializeToString()
    add_gates(model)
    assert model.SerializeToString() == before


def test_names_that_are_taken_are_passed_over() -> None:
    model = parsed(
        "a = Conv(x, w)  b = Conv(a, v)  s = Add(a, b)  t = Conv(s, u)  y = Relu(t)",
        **dict.fromkeys("wvu", (4, 4, 1, 1)),
    )
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["a.to.s" if name == "t" else name for name in names]
    assert gates_of(add_gates(model)) == {"a.to.s_.gate"}


def test_every_operator_of_every_edge_of_darts_can_be_erased() -> None:
    cells, edges = 3, 14
    space = analyze(add_gates(models.parse(SMALL["darts"])))
    assert len(space.candidates) == cells * edges * 7
    assert all(s.minimal for s in space.candidates)
    kinds = {kind: sum(kind in s.tensor for s in space.candidates) for kind in ("max_pool", "avg_pool")}
    assert kinds == dict.fromkeys(kinds, cells * edges)


@pytest.mark.parametrize("source", [SMALL["darts"], "superresnet?width=2&depth=18&size=16", "stackedunets?width=3"])
@pytest.mark.parametrize(("mode", "kept"), [("erase", 0.5), ("joint", 0.3)])
def test_removal_with_gates_is_exact(source: str, mode: Mode, kept: float) -> None:
    gated = with_random_gates(randomised(models.parse(source)))
    target = Target(remove_groups=kept) if mode == "erase" else Target(keep_macs=kept)
    verification = cut(gated, target, mode=mode, criterion="random", seed=2).verify()
    verification.require()
    assert verification.moved is not None
    assert verification.moved > 1e-3


@settings(max_examples=40)
@given(model=networks(), seed=st.integers(0, 2**16))
def test_random_networks_with_gates(model: onnx.ModelProto, seed: int) -> None:
    random = np.random.default_rng(seed)
    gated = with_random_gates(model, seed)
    assert difference(outputs_of(model), outputs_of(add_gates(model))) == 0
    space = analyze(gated)
    gates = [f"{s.tensor}.gate" for s in space.candidates if f"{s.tensor}.gate" in gates_of(gated)]
    assert set(gates) == gates_of(gated)  # each one makes its operand erasable
    chosen = valid_choice(space, lambda n: int(random.integers(n)))
    full = zeroed(gated, [space.candidates[i].group for i in chosen])
    compact = construct(full, space)
    assert difference(outputs_of(full), outputs_of(compact)) <= 1e-5
    unfolded = construct(full, space, fold=False)
    assert difference(outputs_of(full), outputs_of(unfolded)) <= 1e-5
    assert len(compact.graph.node) <= len(unfolded.graph.node)
    assert construct(compact).SerializeToString() == compact.SerializeToString()
    left = {t.name for t in compact.graph.initializer}
    assert gates_of(compact) <= left


def test_gates_train() -> None:
    module = OnnxModule(add_gates(models.build("stackedunets", width=2)), threads=1).train()
    gates = {name: p for name, p in module.named_parameters() if name.endswith(".gate")}
    assert len(gates) == 6
    images = torch.randn(4, 1, 28, 28)
    output = module(images)
    assert isinstance(output, torch.Tensor)
    output.square().mean().backward()
    for name, gate in gates.items():
        assert gate.grad is not None
        assert bool(gate.grad.abs().sum() > 0), name


def test_the_gradient_of_a_gate() -> None:
    model = parsed("a = Conv(x, w)  b = Conv(a, v)  s = Add(a, b)  y = Relu(s)", w=(4, 4, 1, 1), v=(4, 4, 1, 1))
    module = OnnxModule(add_gates(model), threads=1).train()
    images = torch.randn(3, 4, 6, 6)
    module(images).sum().backward()  # type: ignore[union-attr]
    held = dict(module.named_parameters())
    a = torch.nn.functional.conv2d(images, held["w"].detach())
    gate = torch.ones(1, requires_grad=True)
    torch.relu(gate * a + torch.nn.functional.conv2d(a, held["v"].detach())).sum().backward()
    assert gate.grad is not None
    assert held["a.to.s.gate"].grad is not None
    assert torch.allclose(held["a.to.s.gate"].grad, gate.grad, rtol=1e-5)


@pytest.mark.parametrize("text", ["no JSON", "3", '{"a": 1}', "[1, 2]"])
def test_metadata_that_make_no_sense_name_no_gates(text: str) -> None:
    model = models.build("stackedunets", width=1)
    model.metadata_props.add(key=KEY, value=text)
    assert gates_of(model) == frozenset()
    name_gates(model, ["b", "a"])
    assert gates_of(model) == {"a", "b"}
    name_gates(model, [])
    assert KEY not in {entry.key for entry in model.metadata_props}
