"""Where a gate that survives goes: into a weight that only it reaches, or nowhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_asgnas.graph.gates import gates_of, name_gates
from onnx_asgnas.surgery.gate_folding import fold_gates
from tests.random_graphs import difference, outputs_of

SHAPES = {
    "w": (4, 4, 1, 1),
    "v": (4, 4, 1, 1),
    "c": (4,),
    "scale": (4,),
    "bias": (4,),
    "mean": (4,),
    "var": (4,),
    "k": (),
    "m": (6, 6),
    "t": (4, 144),
    "slope": (4, 1, 1),
}


def gated(body: str, gate: float, output: str = "float[N,4,6,6]") -> onnx.ModelProto:
    """A network on x [N, 4, 6, 6] in which g is a gate of this value."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net (float[N,4,6,6] x) => ({output} y) {{ {body} }}'
    )
    random = np.random.default_rng(0)
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & SHAPES.keys()):
        values = np.abs(random.standard_normal(SHAPES[name])) + 0.1
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([gate], np.float32), "g"))
    name_gates(model, ["g"])
    return model


UP = [
    "a = Conv(x, w, c)  b = Mul(a, g)  y = Tanh(b)",
    "a = Conv(x, w)  n = BatchNormalization(a, scale, bias, mean, var)  b = Mul(g, n)  y = Tanh(b)",
    "a = MatMul(x, m)  p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)  b = Mul(p, g)  y = Tanh(b)",
    "a = Mul(x, k)  b = Mul(a, g)  y = Tanh(b)",
]
DOWN = [
    "a = Tanh(x)  b = Mul(a, g)  y = Conv(b, w, c)",
    "a = Tanh(x)  b = Mul(a, g)  p = Transpose<perm=[0,1,3,2]>(b)  y = MatMul(p, m)",
    "a = Tanh(x)  b = Mul(a, g)  y = Mul(b, k)",
]
POSITIVE = [
    "a = Conv(x, w)  r = Relu(a)  b = Mul(r, g)  y = Tanh(b)",
    "a = Tanh(x)  b = Mul(a, g)  p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(b)  r = Relu(p)  y = Conv(r, w)",
    "a = Tanh(x)  b = Mul(a, g)  p = PRelu(b, slope)  y = Conv(p, w)",
]
NEITHER = [
    "a = Tanh(x)  b = Mul(a, g)  y = Sigmoid(b)",
    "a = Conv(x, w)  b = Mul(a, g)  y = Add(a, b)",  # another reader of the product's operand
    "a = Tanh(x)  b = Mul(a, g)  d = Conv(b, w)  e = Conv(b, v)  y = Add(d, e)",  # two readers of the product
    "a = Conv(x, w)  b = Mul(a, g)  d = Conv(x, w)  y = Mul(b, d)",  # a shared weight
    "a = Conv(x, w, c)  b = Mul(a, g)  d = BatchNormalization(x, scale, c, mean, var)  y = Mul(b, d)",  # a shared bias
    "a = Conv(x, w)  y = Mul(a, g)",  # the product is what the model gives
    "a = Tanh(x)  b = Mul(a, g)  d = Tanh(x)  y = Mul(b, d)",  # a product of two activations
]


def folded(body: str, gate: float) -> tuple[onnx.ModelProto, int]:
    """The folded model, checked against the one before, and how many nodes less it has."""
    model = gated(body, gate)
    before = onnx.ModelProto.FromString(model.SerializeToString())
    after = fold_gates(model)
    onnx.checker.check_model(after, full_check=True)
    assert difference(outputs_of(before), outputs_of(after)) <= 1e-6
    return after, len(before.graph.node) - len(after.graph.node)


@pytest.mark.parametrize("gate", [2.5, -0.75])
@pytest.mark.parametrize("body", UP + DOWN)
def test_it_moves_through_what_is_linear(body: str, gate: float) -> None:
    model, less = folded(body, gate)
    assert less == 1
    assert gates_of(model) == frozenset()
    assert "g" not in {t.name for t in model.graph.initializer}


@pytest.mark.parametrize("body", POSITIVE)
def test_it_moves_through_what_only_a_positive_factor_commutes_with(body: str) -> None:
    assert folded(body, 1.5)[1] == 1
    model, less = folded(body, -1.5)
    assert less == 0
    assert gates_of(model) == {"g"}


@pytest.mark.parametrize("body", NEITHER)
def test_else_it_stays(body: str) -> None:
    model, less = folded(body, 1.5)
    assert less == 0
    assert gates_of(model) == {"g"}


def test_a_gate_of_one_is_no_product() -> None:
    body = "a = Tanh(x)  b = Mul(a, g)  y = Sigmoid(b)"
    model, less = folded(body, 1.0)
    assert less == 1
    assert [node.op_type for node in model.graph.node] == ["Tanh", "Sigmoid"]


def test_two_gates_become_one_factor() -> None:
    model = gated("a = Tanh(x)  b = Mul(a, g)  d = Mul(b, k)  y = Sigmoid(d)", 3.0)
    name_gates(model, ["g", "k"])
    before = outputs_of(model)
    after = fold_gates(model)
    assert difference(before, outputs_of(after)) <= 1e-6
    assert sum(node.op_type == "Mul" for node in after.graph.node) == 1
    assert len(gates_of(after)) == 1


def test_a_linear_layer_takes_it_with_or_without_its_bias() -> None:
    for body in (
        "f = Flatten(x)  h = Gemm<transB=1>(f, t, c)  b = Mul(h, g)  y = Tanh(b)",
        "f = Flatten(x)  b = Mul(f, g)  y = Gemm<transB=1>(b, t, c)",
    ):
        model = gated(body, -2.0, output="float[N,4]")
        before = outputs_of(model)
        after = fold_gates(model)
        assert difference(before, outputs_of(after)) <= 1e-6
        assert gates_of(after) == frozenset()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_what_cannot_scale_a_weight_stays(value: float) -> None:
    model = gated("a = Conv(x, w)  b = Mul(a, g)  y = Tanh(b)", value)
    assert gates_of(fold_gates(model)) == {"g"}


def test_a_model_without_gates_is_left_alone() -> None:
    model = gated("a = Conv(x, w)  b = Mul(a, g)  y = Tanh(b)", 2.0)
    name_gates(model, [])
    before = model.SerializeToString()
    assert fold_gates(model).SerializeToString() == before
