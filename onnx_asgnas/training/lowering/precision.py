"""Half precision is trained in float32: the whole graph is turned, types and constants."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnx_asgnas.graph.nodes import subgraphs

_HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"})
"""Attributes that name an element type."""


def in_float32(model: onnx.ModelProto, parameters: Collection[str] = ()) -> onnx.ModelProto:
    """The same network with float32 where it has float16 or bfloat16; without any, the model itself.

    Double precision is turned too where one of `parameters` (graph inputs) has it.
    """
    turned = set(_HALF)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    if any(kinds.get(name) == TensorProto.DOUBLE for name in parameters):
        turned.add(TensorProto.DOUBLE)
    if turned.isdisjoint(_kinds_in(model.graph)):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _turn(result.graph, turned)
    return result


def _kinds_in(graph: onnx.GraphProto) -> Iterable[int]:
    """The element types that a graph names, those of its subgraphs included."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.data_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES:
                yield attribute.i
            elif attribute.HasField("t"):
                yield attribute.t.data_type
        for inner in subgraphs(node):
            yield from _kinds_in(inner)


def _turn(graph: onnx.GraphProto, kinds: Collection[int]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in kinds:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _turn_tensor(tensor, kinds)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in kinds:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t"):
                _turn_tensor(attribute.t, kinds)
        for inner in subgraphs(node):
            _turn(inner, kinds)


def _turn_tensor(tensor: onnx.TensorProto, kinds: Collection[int]) -> None:
    if tensor.data_type in kinds:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
