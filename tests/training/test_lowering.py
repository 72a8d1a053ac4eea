"""Every operator of the training dialect, and every lowering, against torch's gradients in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper, parser

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.lowering import GradientPath, lower
from onnx_asgnas.training.lowering.dialect import ORT_OPERATORS
from onnx_asgnas.training.lowering.registry import REWRITES
from tests.training.lowering.node_cases import node_cases
from tests.training.lowering.operator_cases import CASES, NEAREST, Case, f32, interpolate, ints

Tensor = torch.Tensor

BATCH_NORMALIZATION = {"BatchNormalization"}
"""Tested on its own, in test_bridge and test_engine: what it does depends on the mode."""


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_torch(name: str) -> None:
    case = CASES[name]
    module = OnnxModule(case.model(), train=["w", *case.weights])
    generator = torch.Generator().manual_seed(1)
    for batch in (2, 3):  # on one engine: the batch stays open
        x = torch.randn(batch, *case.shape, generator=generator)
        x = x.abs() + 0.2 if case.positive else x
        expected, wanted = reference(case, module, x)
        x.requires_grad_()
        module.zero_grad()
        output = module(x)
        assert isinstance(output, Tensor)
        weight = weighting(output)
        backward((output * weight).sum())
        torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
        found = {"x": x.grad, **{n: p.grad for n, p in module.named_parameters()}}
        for parameter, gradient in wanted.items():
            mine = found[parameter]
            assert mine is not None or float(gradient.norm()) == 0, parameter
            if mine is not None:
                floor = 1e-3 * max(float(g.norm()) for g in wanted.values())  # some true gradients are zero
                assert float((mine.double() - gradient).norm()) < 1e-5 * max(float(gradient.norm()), floor), parameter


def reference(case: Case, module: OnnxModule, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}
    leaves["x"] = x.double().requires_grad_()
    weights = {name: leaf for name, leaf in leaves.items() if name in case.weights}
    output = case.reference(leaves["x"] * leaves["w"], **weights)
    found: Sequence[Tensor | None] = torch.autograd.grad(
        (output * weighting(output)).sum(), list(leaves.values()), allow_unused=True
    )
    gradients = {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(leaves.items(), found, strict=True)}
    return output.detach(), gradients


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def weighting(output: Tensor) -> Tensor:
    return torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).to(output.dtype)


def test_every_operator_of_the_dialect_and_every_rewrite_has_a_case() -> None:
    """In CASES, or over ONNX's node tests; those of the runtime are in lowering/test_runtime_operators.py."""
    tested = {op for case in CASES.values() for op in re.findall(r"= (\w+)", case.body)}
    tested |= {case.op_type for case in node_cases() if not case.domain} | {"If"}
    rewritten = {op_type for domain, op_type in REWRITES if not domain}
    assert (ORT_OPERATORS | rewritten) - tested == BATCH_NORMALIZATION - tested | {
        "ConvInteger",
        "DequantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
        "SimplifiedLayerNormalization",
    }


def test_training_graph_is_in_the_dialect_and_shares_names() -> None:
    case = CASES["HardSwish"]
    model = normalise(case.model())
    before = model.SerializeToString()
    graph = lower(model, ["w"])
    assert model.SerializeToString() == before
    assert {n.op_type for n in GradientPath(graph.model, ["w"]).nodes} <= ORT_OPERATORS
    assert (graph.inputs, graph.parameters, graph.wrt, graph.outputs) == (("x",), ("w",), ("w",), ("y",))
    assert [v.name for v in graph.model.graph.input] == ["x", "w"]
    assert "w" not in {t.name for t in graph.model.graph.initializer}


def test_only_what_needs_a_gradient_is_lowered() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,H,W] x) => (float[N,2] y) {
        r = Tan(x) s = Softsign(r) p = GlobalAveragePool(s) f = Flatten(p) y = MatMul(f, W) }"""
    model = normalise(with_weights(text, W=np.ones((3, 2))))
    assert "Softsign" in {n.op_type for n in lower(model, ["W"]).model.graph.node}
    assert "Softsign" not in {n.op_type for n in lower(model, ["W"], wrt=["x"]).model.graph.node}


def test_parameter_without_a_differentiable_path_is_left_out() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,2] y, int64[N,1] z) {
        c = Clip(x, low) m = MatMul(c, W) a = MatMul(x, V) z = ArgMax<axis=1>(a)
        i = Cast<to=7>(U) k = Gather(m, i) y = Mul(k, m) }"""
    model = normalise(with_weights(text, W=np.ones((3, 2)), V=np.ones((3, 2)), U=np.zeros(1), low=np.array(0.0)))
    graph = lower(model, ["W", "V", "U", "low"])
    assert graph.wrt == ("W",)
    assert graph.differentiable == (True, False)


@pytest.mark.parametrize(
    ("body", "op", "reason"),
    [
        (
            "m = Reshape(h, six) d = Det(m) y = Unsqueeze(d, one_two)",
            "Det",
            "a determinant of 6 rows is not written out",
        ),
        (
            'y = ScatterElements<reduction="mul">(h, index, h)',
            "ScatterElements",
            "a product of updates has no gradient",
        ),
        ("a, b = Split<axis=2, num_outputs=2>(h) y = Add(a, b)", "Split", "needs the size of axis 2, which is open"),
        ('y = Conv<auto_pad="SAME_UPPER", strides=[2]>(h, V)', "Conv", "needs the size of axis 2, which is open"),
        ('y = Resize<mode="linear", keep_aspect_ratio_policy="not_larger">(h, , , sizes)', "Resize", "size of axis 2"),
        (
            'i = Cast<to=7>(h) p = ReduceMax<keepdims=0>(i) q = Expand(p, one) y = Pad<mode="edge">(h, q, , two)',
            "Pad",
            "padding is computed",
        ),
        ("y = Slice(h, one, zero, two, minus)", "Slice", "it goes backward along axis 2, the size of which is open"),
        (
            "q = QuantizeLinear(h, scale, zp) r = Relu(q) y = DequantizeLinear(r, scale, zp)",
            "DequantizeLinear",
            "right before",
        ),
    ],
)
def test_what_cannot_be_lowered_is_named(body: str, op: str, reason: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,L] x) => (float[A,B,C] y) {{
        h = Conv(x, K) {body} z = Relu(y) }}"""
    constants = {
        "index": np.zeros((1, 3, 1), np.int64),
        "sizes": ints(1, 3, 8),
        "six": ints(0, 6, 6),
        "one_two": ints(1, 2),
        "one": ints(1),
        "zero": ints(0),
        "two": ints(2),
        "minus": ints(-1),
        "scale": f32(0.1),
        "zp": np.array(0, np.int8),
        "V": np.ones((4, 3, 3)),
    }
    used = {name: value for name, value in constants.items() if name in re.findall(r"\w+", body)}
    model = normalise(with_weights(text, K=np.ones((3, 3, 1)), **used))
    with pytest.raises(UnsupportedOperatorError, match=reason) as caught:
        lower(model, ["K"])
    assert caught.value.op_type == op
    assert caught.value.node == [node.name for node in model.graph.node if node.op_type == op][-1]
    assert "freezing does not help" in str(caught.value)


def test_what_to_freeze_is_named_where_it_helps() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]> g (float[N,3] x) => (float[N,2] y) {
        a = MatMul(x, "stem.0.W") b = MatMul(a, "stem.1.W") c = MatMul(x, "side") s = Add(b, c) t = Transpose(s)
        u = acme.Spin(t) r = Reshape(u, shape) y = MatMul(r, "head.W") }"""
    weights = {
        "stem.0.W": np.ones((3, 3)),
        "stem.1.W": np.ones((3, 3)),
        "side": np.ones((3, 3)),
        "head.W": np.ones((3, 2)),
    }
    names = list(weights)
    model = normalise(with_weights(text, **weights, shape=ints(-1, 3)))
    with pytest.raises(UnsupportedOperatorError, match=r"--freeze 'stem\.\*' --freeze 'side'") as caught:
        lower(model, names)
    assert caught.value.freeze == ("stem.*", "side")
    assert lower(model, names, wrt=["head.W"]).wrt == ("head.W",)
    with pytest.raises(UnsupportedOperatorError, match="A gradient of an input is asked for"):
        lower(model, names, wrt=["head.W", "x"])
    with pytest.raises(UnsupportedOperatorError, match="freezing does not help"):
        lower(model, names, wrt=["side"])


def test_branch_that_captures_what_trains_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"If 'If_1' cannot be lowered.*condition is computed"):
        lower(normalise(with_weights(BRANCHES.format("bool c"), K=np.ones((3, 3)))), ["K"])


def test_branch_of_a_constant_condition_is_the_network() -> None:
    model = with_weights(BRANCHES.format("float[1] unused"), K=np.eye(3), c=np.array(False))
    lowered = lower(model, ["K"]).model
    assert [node.op_type for node in lowered.graph.node] == ["MatMul", "Exp", "Add"]


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x, {}) => (float[N,3] y) {{ h = MatMul(x, K)
    r = If (c) <then_branch = t () => (float[N,3] a) {{ a = Relu(h) }},
                else_branch = e () => (float[N,3] b) {{ b = Exp(h) }}>
    y = Add(h, r) }}"""


def test_tensor_of_unknown_rank_is_a_reason() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[N,3] x) => (float[A,B,C] y) {
        r = acme.Unknown(x) m = MatMul(r, K) y = Transpose(m) }"""
    with pytest.raises(UnsupportedOperatorError, match="the rank of 'm' is not known"):
        lower(normalise(with_weights(text, K=np.ones((3, 3)))), ["K"])


def test_size_that_both_inputs_keep_open_is_no_resize() -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4,4] x) => (float[N,3,8,4] y) {{
        h = Conv(x, K) s = Shape<end=2>(h) t = Concat<axis=0>(s, size) y = Resize<{NEAREST}>(h, , , t) }}"""
    model = normalise(with_weights(text, K=np.ones((3, 3, 1, 1)), size=ints(8, 4)))
    graph = lower(model, ["K"])
    assert "Resize" not in {n.op_type for n in graph.model.graph.node}


def test_batch_normalisation_with_computed_statistics_stays_in_inference_form() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x, float[3] m, float[3] v) => (float[N,3] y) {
        e = Exp(v) y = BatchNormalization(x, s, b, m, e) }"""
    graph = lower(normalise(with_weights(text, s=np.ones(3), b=np.zeros(3))), ["s", "b"])
    assert graph.statistics == ()
    assert "BatchNormalization" not in {n.op_type for n in graph.model.graph.node}


def test_operator_of_another_domain_is_refused_by_name() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[N,3] x) => (float[N,3] y) {
        h = MatMul(x, W) y = acme.Spin(h) }"""
    model = normalise(with_weights(text, W=np.ones((3, 3))))
    with pytest.raises(UnsupportedOperatorError, match=r"acme\.Spin"):
        lower(model, ["W"])


@pytest.mark.parametrize("opset", [9, 11, 13, 14, 21, 22, 26])
def test_any_opset_reaches_one_that_the_runtime_loads(opset: int) -> None:
    conv = helper.make_node("Conv", ["x", "W"], ["c"], pads=[1, 1, 1, 1])
    norm = helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"])
    relu = helper.make_node("Relu", ["n"], ["r"])
    pool = helper.make_node("GlobalAveragePool", ["r"], ["p"])
    flat = helper.make_node("Flatten", ["p"], ["y"])
    graph = helper.make_graph(
        [conv, norm, relu, pool, flat],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(f32(np.random.default_rng(0).normal(size=(3, 2, 3, 3))), "W"),
            *(numpy_helper.from_array(np.ones(3, np.float32), name) for name in ("s", "b", "m", "v")),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13 if opset > 21 else 8)
    module = OnnxModule(model)
    output = module(torch.randn(2, 2, 4, 4))
    assert isinstance(output, Tensor)
    backward(output.sum())
    assert all(p.grad is not None for p in module.parameters())
    module.eval()
    assert module(torch.randn(3, 2, 4, 4)).shape == (3, 3)
    assert module.to_onnx().opset_import[0].version == opset


@pytest.mark.parametrize(
    ("opset", "body", "reference"),
    [
        (8, 'y = Upsample<mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]>(h)', interpolate(scale_factor=2)),
        (10, "y = Clip<min=-0.5, max=0.5>(h)", lambda h: h.clamp(-0.5, 0.5)),
        (10, "y = Pad<pads=[0, 0, 1, 0, 0, 0, 0, 2]>(h)", lambda h: F.pad(h, (0, 2, 1, 0))),
        (11, "a, b = Split<axis=2>(h) y = Mul(a, b)", lambda h: h[:, :, :2] * h[:, :, 2:]),
        (11, "f = Flatten(h) y = Softmax(f)", lambda h: h.flatten(1).softmax(1)),
        (13, "y = HardSigmoid(h)", lambda h: (0.2 * h + 0.5).clamp(0, 1)),
    ],
)
def test_operators_of_older_opsets(opset: int, body: str, reference: Callable[[Tensor], Tensor]) -> None:
    rank = reference(torch.ones(2, 3, 4, 4)).dim()
    shape = ",".join("ABCD"[:rank])
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> g (float[N,3,4,4] x) => (float[{shape}] y) {{
        h = Conv(x, K) {body} }}"""
    module = OnnxModule(with_weights(text, K=np.random.default_rng(0).normal(size=(3, 3, 1, 1))))
    kernel = module.get_parameter("K").detach().clone().requires_grad_()
    x = torch.randn(2, 3, 4, 4)
    output, wanted = module(x), reference(F.conv2d(x, kernel))
    torch.testing.assert_close(output, wanted, rtol=1e-5, atol=1e-5)
    backward(output.square().sum())
    backward(wanted.square().sum())
    torch.testing.assert_close(module.get_parameter("K").grad, kernel.grad, rtol=1e-4, atol=1e-4)


def test_operator_that_is_too_new_for_the_runtime_is_named() -> None:
    text = """<ir_version: 10, opset_import: ["" : 26]> g (float[N,3] x) => (float[N,3] y, int32[N,3] z) {
        y = MatMul(x, W) z = BitCast<to=6>(y) }"""
    with pytest.raises(UnsupportedOperatorError, match="BitCast 'BitCast_1' has no form in opset 21") as caught:
        lower(normalise(with_weights(text, W=np.ones((3, 3)))), ["W"])
    assert caught.value.op_type == "BitCast"


def test_functions_of_the_model_are_inlined() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]> g (float[N,3] x) => (float[N,2] y) {
            y = local.dense(x, W) }
        <domain: "local", opset_import: ["" : 17]> dense (a, b) => (c) { m = MatMul(a, b) c = Relu(m) }"""
    graph = lower(normalise(with_weights(text, W=np.ones((3, 2)))), ["W"])
    assert [n.op_type for n in graph.model.graph.node] == ["MatMul", "Relu"]


def test_shape_stays_open_in_what_the_model_leaves_open() -> None:
    graph = lower(TraceGraph.of(CASES["Resize nearest of open size"].model()).model, ["w"])
    dims = graph.model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims] == ["N", "", "H", "W"]


def with_weights(text: str, **weights: Any) -> onnx.ModelProto:
    model = parser.parse_model(text)
    for name, value in weights.items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model
