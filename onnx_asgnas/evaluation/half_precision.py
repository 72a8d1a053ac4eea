"""Models in half precision: find them, and give their copy in float32, in which small differences still show."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import TensorProto, numpy_helper

HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""The element types with fewer than 12 significant bits."""


def is_half_precision(model: onnx.ModelProto) -> bool:
    """Does the model compute in float16 or bfloat16, in part at least."""
    graph = model.graph
    declared = (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output))
    stored = (tensor.data_type for tensor in _tensors(graph))
    cast = (a.i for node in all_nodes(graph) for a in node.attribute if node.op_type == "Cast" and a.name == "to")
    return any(kind in HALF for kinds in (declared, stored, cast) for kind in kinds)


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with every half precision number a float32 of the same value; the argument is not changed."""
    return retyped(model, HALF, TensorProto.FLOAT)


def retyped(model: onnx.ModelProto, kinds: Collection[int], kind: int) -> onnx.ModelProto:
    """The same network with every number of these element types one of that type; the argument is not changed."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    for graph in _graphs(result.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in kinds:
                value.type.tensor_type.elem_type = kind
    for tensor in _tensors(result.graph):
        if tensor.data_type in kinds:
            values = numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in all_nodes(result.graph):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in kinds:
                attribute.i = kind
    return result


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the subgraphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the subgraphs inside it."""
    for inner in _graphs(graph):
        yield from inner.node


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The initializers, and the tensors that nodes hold as attributes."""
    for inner in _graphs(graph):
        yield from inner.initializer
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
