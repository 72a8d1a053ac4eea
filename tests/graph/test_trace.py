"""The trace graph's index over a model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_asgnas.graph import TraceGraph

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N, 4, H, 8] x, float[N, 4, H, 8] z) => (float[N, 4, H, 8] y, float[N, 4, H, 8] a)
<float[4, 4, 1, 1] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, int64[2] two = {0, -1}> {
    a = Conv (x, w)   b = Mul (a, a)   c = Add (b, z)   s = Shape (x)   d = Reshape (c, s)   f = Transpose (w)
    y = Conv (d, f)
}"""


@pytest.fixture(scope="module")
def graph() -> TraceGraph:
    return TraceGraph.of(onnx.parser.parse_model(MODEL))


def test_nodes_are_known_by_their_place(graph: TraceGraph) -> None:
    assert [graph.nodes[i].op_type for i in (graph.producer["a"], graph.producer["y"])] == ["Conv", "Conv"]
    assert graph.consumers["a"] == [1, 1]
    assert graph.inputs == ("x", "z")
    assert graph.outputs == ("y", "a")
    assert graph.is_output("a") and not graph.is_output("b")


def test_activations_are_what_an_input_leads_to(graph: TraceGraph) -> None:
    assert graph.activations == {"x", "z", "a", "b", "c", "d", "y"} | ({"s"} if "s" in graph.producer else set())
    assert "f" not in graph.activations
    view = graph.with_constants(["d"])
    assert "d" not in view.activations and "d" in graph.activations


def test_shapes_leave_open_what_is_open(graph: TraceGraph) -> None:
    assert graph.shape("a") == (None, 4, None, 8)
    assert graph.size("a") == (1, 4, 64, 8)
    assert graph.sizes("a") == ((1, 4, 64, 8), (2, 4, 96, 8))
    assert graph.shape("f") == (1, 1, 4, 4)
    assert graph.shape("nowhere") is None and graph.size("nowhere") is None


def test_types_and_values(graph: TraceGraph) -> None:
    assert graph.dtype("a") == onnx.TensorProto.FLOAT
    assert graph.dtype("nowhere") == onnx.TensorProto.UNDEFINED
    assert np.array_equal(graph.array("w").ravel()[:4], [1, 2, 3, 4])
    assert graph.constant("w") is None
