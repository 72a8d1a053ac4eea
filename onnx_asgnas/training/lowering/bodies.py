"""Operators by others: the definitions that the ONNX standard gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import TypeProto, helper

from onnx_asgnas.graph.nodes import is_standard
from onnx_asgnas.graph.shapes import ShapeInference


@dataclass(frozen=True, slots=True)
class Body:
    """The definition of one node: nodes of operator set `version` from formal `inputs` to formal `outputs`.

    `given` are the tensors that stand for the inputs, "" for those that are left out.
    """

    nodes: Sequence[onnx.NodeProto]
    inputs: Sequence[str]
    given: Sequence[str]
    outputs: Sequence[str]
    version: int


def body_of(node: onnx.NodeProto, shapes: ShapeInference, opset: int, version: int) -> Body | None:
    """The standard's definition of a node by operators of `opset`; None where it has none.

    `version` is the operator set that the node itself was written in, for operators that are newer.
    """
    of = opset if is_known(node, opset) else version
    if not is_standard(node) or not onnx.defs.has(node.op_type, of):
        return None
    schema: Any = onnx.defs.get_schema(node.op_type, of)
    whole = _with_defaults(node, schema)
    function = _defined(schema, opset) or _defined_for(schema, whole, shapes, opset)
    if function is None:
        return None
    attributes = {a.name: a for a in whole.attribute}
    nodes = [resolved for inner in function.node if (resolved := _resolve(inner, attributes)) is not None]
    given = [*node.input, *[""] * (len(function.input) - len(node.input))][: len(function.input)]
    version = max((o.version for o in function.opset_import if o.domain in ("", "ai.onnx")), default=opset)
    return Body(nodes, list(function.input), given, list(function.output), version)


def is_known(node: onnx.NodeProto, opset: int) -> bool:
    """Does this operator set have the operator in this form; of other domains all are taken to be there."""
    if not is_standard(node):
        return True
    attributes = _attributes(node.op_type, opset)
    return attributes is not None and all(a.name in attributes for a in node.attribute)


@cache
def _attributes(op_type: str, opset: int) -> frozenset[str] | None:
    """The attributes of an operator; None where the operator set does not have it."""
    if not onnx.defs.has(op_type, opset):
        return None
    return frozenset(onnx.defs.get_schema(op_type, opset).attributes)


def _with_defaults(node: onnx.NodeProto, schema: Any) -> onnx.NodeProto:
    """The node with the attributes written out that are left at their defaults: definitions refer to them."""
    whole = onnx.NodeProto()
    whole.CopyFrom(node)
    given = {a.name for a in node.attribute}
    for name, formal in schema.attributes.items():
        if name not in given and formal.default_value.name:
            whole.attribute.append(formal.default_value)
    return whole


def _defined(schema: Any, opset: int) -> onnx.FunctionProto | None:
    if not schema.has_function:
        return None
    version = _fitting(schema.function_opset_versions, opset)
    function: onnx.FunctionProto = onnx.FunctionProto.FromString(schema.get_function_with_opset_version(version))
    return function


def _defined_for(schema: Any, node: onnx.NodeProto, shapes: ShapeInference, opset: int) -> onnx.FunctionProto | None:
    """The definition that depends on attributes and on the types of the inputs."""
    if not schema.has_context_dependent_function:
        return None
    version = _fitting(schema.context_dependent_function_opset_versions, opset)
    types = [_type(name, shapes).SerializeToString() for name in node.input]
    found: bytes = schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), types)
    if not found:
        return None
    function: onnx.FunctionProto = onnx.FunctionProto.FromString(found)
    return function


def _fitting(versions: Sequence[int], opset: int) -> int:
    """The newest definition that the operator set can express, or the oldest there is."""
    return max((version for version in versions if version <= opset), default=min(versions))


def _type(name: str, shapes: ShapeInference) -> TypeProto:
    if not name:
        return TypeProto()
    return helper.make_tensor_type_proto(shapes.dtype(name), shapes.shape(name))


def _resolve(node: onnx.NodeProto, attributes: dict[str, onnx.AttributeProto]) -> onnx.NodeProto | None:
    """A node of a definition with the attributes that it takes from the call; one not given leaves a Constant out."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    del result.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            result.attribute.append(attribute)
        elif attribute.ref_attr_name in attributes:
            taken = result.attribute.add()
            taken.CopyFrom(attributes[attribute.ref_attr_name])
            taken.name = attribute.name
    return None if node.op_type == "Constant" and not result.attribute else result
