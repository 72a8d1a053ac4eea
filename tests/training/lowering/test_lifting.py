"""Older forms of operators: every one that changed has a way up, and what comes out is the same network."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.packages import import_onnxruntime
from onnx_asgnas.training.lowering import lower
from onnx_asgnas.training.lowering.lifting import _LIFTS, OLDEST_OPSET

DROPPED = {"consumed_inputs", "is_test", "broadcast", "axis", "spatial", "output_sequence"}
"""Attributes that went away, everywhere in one manner."""
NEVER_LIFTED = {"Constant", "Tile", "Upsample", "Scatter"}
"""Constants are folded, Tile has had its form since opset 6, and the other two became other operators."""


def test_every_operator_that_changed_has_a_way_up() -> None:
    versions = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and schema.since_version <= OLDEST_OPSET:
            versions[schema.name].append(schema)
    missing = set()
    for name, found in versions.items():
        *older, newest = sorted(found, key=lambda schema: schema.since_version)
        lost = {a for schema in older for a in schema.attributes} - set(newest.attributes) - DROPPED
        if lost and name not in NEVER_LIFTED | _LIFTS.keys():
            missing.add(name)
    assert not missing


CASES: list[tuple[int, str, dict[str, Any], list[tuple[int, ...]], dict[str, Any]]] = [
    (7, "Clip", {"min": -0.5, "max": 0.5}, [(2, 3)], {}),
    (7, "Pad", {"pads": [0, 1, 0, 2], "value": 1.5}, [(2, 3)], {}),
    (7, "Slice", {"starts": [1], "ends": [3], "axes": [1]}, [(2, 4)], {}),
    (7, "Slice", {"starts": [0, 1], "ends": [2, 3]}, [(2, 4)], {}),
    (7, "TopK", {"k": 2, "axis": 1}, [(2, 4)], {}),
    (7, "Upsample", {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, [(1, 2, 3, 3)], {}),
    (9, "Upsample", {"mode": "linear"}, [(1, 2, 3, 3)], {"s": np.array([1, 1, 2, 2], np.float32)}),
    (10, "Resize", {"mode": "nearest"}, [(1, 2, 3, 3)], {"s": np.array([1, 1, 2, 2], np.float32)}),
    (10, "Scatter", {"axis": 1}, [(2, 4)], {"i": np.array([[1], [2]]), "u": np.ones((2, 1), np.float32)}),
    (11, "Squeeze", {"axes": [1]}, [(2, 1, 3)], {}),
    (11, "Unsqueeze", {"axes": [0, 2]}, [(2, 3)], {}),
    (11, "Split", {"axis": 1, "split": [1, 3]}, [(2, 4)], {}),
    (11, "Softmax", {"axis": 1}, [(2, 3, 4)], {}),
    (11, "LogSoftmax", {"axis": 2}, [(2, 3, 4)], {}),
    (11, "ReduceSum", {"axes": [1], "keepdims": 0}, [(2, 3, 4)], {}),
    (13, "ReduceMean", {"axes": [1, 2]}, [(2, 3, 4)], {}),
    (13, "ReduceLogSumExp", {}, [(2, 3, 4)], {}),
    (13, "Split", {"axis": 1}, [(2, 4)], {}),
]


@pytest.mark.parametrize(("opset", "op_type", "attributes", "shapes", "constants"), CASES)
def test_lifted_node_gives_the_same(
    opset: int,
    op_type: str,
    attributes: dict[str, Any],
    shapes: list[tuple[int, ...]],
    constants: dict[str, np.ndarray],
) -> None:
    count = 2 if op_type in ("Split", "TopK") else 1
    names = [f"x{at}" for at in range(len(shapes))]
    node = helper.make_node(op_type, [*names, *constants], [f"y{at}" for at in range(count)], name="n", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in zip(names, shapes, strict=True)}
    for wrt in (names, []):  # on the gradient path, and off it
        lowered = lower(model, [], wrt=wrt).model
        assert lowered.opset_import[0].version == OLDEST_OPSET
        for domain in [entry for entry in lowered.opset_import if entry.domain == "onnx_asgnas"]:
            lowered.opset_import.remove(domain)
        np.testing.assert_allclose(_run(lowered, feeds), _run(model, feeds), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("op_type", "attributes", "shape", "expected"),
    [
        ("Add", {"broadcast": 1, "axis": 1}, (3,), lambda x, y: x + y[:, None]),
        ("Mul", {"broadcast": 1}, (4,), lambda x, y: x * y),
        ("Sub", {"broadcast": 1, "axis": 0}, (2, 3), lambda x, y: x - y[..., None]),
        ("PRelu", {}, (3,), lambda x, y: np.where(x < 0, x * y[:, None], x)),
    ],
)
def test_operands_of_opset_6_lie_along_an_axis(
    op_type: str, attributes: dict[str, Any], shape: tuple[int, ...], expected: Any
) -> None:
    node = helper.make_node(op_type, ["x", "y"], ["z"], name="n", **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (2, 3, 4)), ("y", shape))]
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("z", TensorProto.FLOAT, (2, 3, 4))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=8)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), shape))
    np.testing.assert_allclose(_run(lower(model, [], wrt=["x"]).model, {"x": x, "y": y}), expected(x, y), rtol=1e-6)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> Any:
    for node in model.graph.node:
        if node.op_type == "Detach":
            node.op_type, node.domain = "Identity", ""
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_form_without_a_successor_is_a_model_error() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])],
    )
    node = helper.make_node("Scan", ["", "x"], ["y"], name="scan", body=body, num_scan_inputs=1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=8)
    with pytest.raises(ModelError, match="Scan 'scan' of opset 8 cannot be raised to 18"):
        lower(model, [], wrt=["x"])
