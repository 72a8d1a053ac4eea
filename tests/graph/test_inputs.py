from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.inputs import input_names, made_up_inputs, table_sizes

Parse = Callable[[str], onnx.ModelProto]


def embedding() -> onnx.ModelProto:
    """Two tables on the same ids, of which one comes by way of Cast and Unsqueeze, and a mask."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "wide"], ["word"]),
        helper.make_node("Unsqueeze", ["wide", "one"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["pair"], axis=1),
        helper.make_node("Gather", ["kinds", "pair"], ["kind"], axis=1),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["word", "which"], ["chosen"]),
    ]
    graph = helper.make_graph(
        nodes,
        "embedding",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["N", 6]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["N", 6]),
            helper.make_tensor_value_info("which", TensorProto.INT64, [2]),
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 50]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, ["N"]),
        ],
        [
            helper.make_tensor_value_info("kind", TensorProto.FLOAT, [4, "N", 2, 6]),
            helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [2, 6, 4]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 6]),
        ],
        [
            numpy_helper.from_array(np.zeros((500, 4), np.float32), "words"),
            numpy_helper.from_array(np.zeros((4, 90), np.float32), "kinds"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_ids_stay_within_the_smallest_table_that_they_are_used_on() -> None:
    graph = TraceGraph.of(embedding())
    assert table_sizes(graph) == {"ids": 90}, "words has 500 rows, kinds 90; 'which' indexes no table"
    ids = made_up_inputs(graph, batch=200)["ids"]
    assert ids.dtype == np.int32 and ids.shape == (200, 6)
    assert ids.min() == 0 and ids.max() == 89


def test_masks_are_ones_and_bytes_have_their_range() -> None:
    inputs = made_up_inputs(TraceGraph.of(embedding()), batch=40)
    assert (inputs["attention_mask"] == 1).all() and inputs["flag"].all()
    assert inputs["image"].dtype == np.uint8 and inputs["image"].max() > 200
    assert set(np.unique(inputs["which"])) <= {0, 1}


def test_the_seed_decides() -> None:
    graph = TraceGraph.of(embedding())
    first, again, other = (made_up_inputs(graph, batch=9, seed=seed)["ids"] for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_an_initializer_is_no_input(parse: Parse) -> None:
    model = parse("g (float[N] x, float[1] w) => (float[N] y) <float[1] w = {2}> { y = Mul (x, w) }")
    assert input_names(model) == ("x",)
