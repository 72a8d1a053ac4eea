from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.errors import VerificationError
from onnx_asgnas.evaluation import verify
from onnx_asgnas.evaluation.half_precision import in_float32, is_half_precision
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.inputs import made_up_inputs
from onnx_asgnas.graph.runtime import run, session

Parse = Callable[[str], onnx.ModelProto]


def half_network(kind: int = TensorProto.FLOAT16, scale: float = 1.0) -> onnx.ModelProto:
    """A small network in half precision: constants as attribute and initializer, a Cast, a fill, and an If inside."""
    random = np.random.default_rng(0)
    weight = helper.make_tensor("w", kind, [8, 8], random.standard_normal(64).tolist())
    shift = helper.make_tensor("shift", kind, [8], (scale * random.standard_normal(8)).tolist())
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["shifted", f"factor{at}"], [f"branch{at}"])],
            f"branch{at}",
            [],
            [helper.make_tensor_value_info(f"branch{at}", kind, ["N", 8])],
            [helper.make_tensor(f"factor{at}", kind, [1], [at + 1.0])],
        )
        for at in range(2)
    ]
    nodes = [
        helper.make_node("Constant", [], ["bias"], value=shift),
        helper.make_node("Cast", ["x"], ["half"], to=kind),
        helper.make_node("MatMul", ["half", "w"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["shifted"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, [1]),
        ],
        [helper.make_tensor_value_info("y", kind, ["N", 8])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_the_copy_in_float32_computes_the_same(kind: int) -> None:
    model = half_network(kind)
    before = model.SerializeToString()
    wide = in_float32(model)
    assert model.SerializeToString() == before
    assert is_half_precision(model) and not is_half_precision(wide)
    onnx.checker.check_model(wide, full_check=True)
    inputs = made_up_inputs(TraceGraph.of(wide), batch=4)
    weight = numpy_helper.to_array(wide.graph.initializer[0])
    bias = numpy_helper.to_array(wide.graph.node[0].attribute[0].t)
    np.testing.assert_allclose(run(session(wide), inputs)["y"], inputs["x"] @ weight + bias, rtol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_equal_networks_in_half_precision_pass(kind: int) -> None:
    found = verify(half_network(kind), half_network(kind))
    assert found.passed and found.max_relative_difference == 0.0
    if kind == TensorProto.BFLOAT16:
        assert any(remark.startswith("not checked in half precision") for remark in found.remarks), found.remarks


def test_what_half_precision_hides_the_copy_shows() -> None:
    found = verify(half_network(), half_network(scale=1.0005))
    assert found.outputs["y"] < 5e-3
    assert not found.passed and found.tolerance == 1e-5
    with pytest.raises(VerificationError, match="in a float32 copy"):
        found.require()


def test_inputs_in_half_precision_feed_both(parse: Parse) -> None:
    model = parse("g (float16[N,4] x) => (float16[N,4] y) { y = Relu (x) }")
    assert is_half_precision(model)
    assert verify(model, model, inputs={"x": np.ones((2, 4), np.float32)}).passed


def test_full_precision_is_not_half(parse: Parse) -> None:
    assert not is_half_precision(parse("g (float[N] x) => (double[N] y) { y = Cast <to = 11> (x) }"))
