"""Which operator set a model uses, and how to bring it to one that the training runtime loads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import onnx
from onnx import helper, inliner, numpy_helper, version_converter

from onnx_asgnas.errors import ModelError, UnsupportedOperatorError
from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.graph.shapes import ShapeInference

OLDEST_OPSET, NEWEST_OPSET, NEWEST_IR = 14, 21, 10
"""BatchNormalization has its training form from opset 14; the training runtime loads opset 21 and IR version 10."""
BODIES_OPSET = 18
"""The opset in which the standard's definitions of operators are written; the inliner leaves older nodes alone."""


def loadable(model: onnx.ModelProto, *, oldest: int = OLDEST_OPSET) -> onnx.ModelProto:
    """The same network in an opset and an IR version that the runtime loads; raises ModelError where there is none."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    model = raise_opset(model, oldest)
    if opset_of(model) > NEWEST_OPSET:
        model = _lower_opset(model)
    if model.ir_version > NEWEST_IR:
        model = _copy(model)
        model.ir_version = NEWEST_IR
    return model


def raise_opset(model: onnx.ModelProto, oldest: int) -> onnx.ModelProto:
    """The same network in this opset at least, in normal form; raises ModelError where that is not possible."""
    opset = opset_of(model)
    if opset >= oldest:
        return model
    try:
        return normalise(version_converter.convert_version(model, oldest))
    except (RuntimeError, ValueError) as error:  # it asserts on operators that it has no adapter for
        reason = str(error).strip().rpartition("failed: ")[2].partition("\n")[0].replace("$", "")
        raise ModelError(
            f"the model's opset {opset} cannot be raised to {oldest}, which training needs: {reason}",
            fix=f"Export the model with opset {BODIES_OPSET} to {NEWEST_OPSET}.",
            opset=opset,
        ) from None


def has_body(op_type: str, opset: int) -> bool:
    """Does the standard define this operator by others."""
    if not onnx.defs.has(op_type, opset):
        return False
    schema: Any = onnx.defs.get_schema(op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def inline_bodies(model: onnx.ModelProto, op_types: Collection[str]) -> onnx.ModelProto:
    """Replace every node of these operators by the standard's definition of it; the result is in normal form."""
    return normalise(without_cast_like(_inline_as_it_stands(model, op_types)))


def _inline_as_it_stands(model: onnx.ModelProto, op_types: Collection[str]) -> onnx.ModelProto:
    """Inline these operators. The inliner knows the types of graph inputs only, so constants are listed as such."""
    listed = _copy(model)
    for node in listed.graph.node:
        if node.op_type in op_types and is_standard(node):
            _write_defaults(node, opset_of(model))
    listed.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    )
    result = inliner.inline_selected_functions(
        listed, [("", op) for op in sorted(op_types)], inline_schema_functions=True
    )
    own = {value.name for value in model.graph.input}
    inputs = [value for value in result.graph.input if value.name in own]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    return result


def _write_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Write out the attributes that are left at their defaults: bodies refer to them, and the inliner leaves blanks."""
    given = {a.name for a in node.attribute}
    for name, formal in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in given and formal.default_value.name:
            node.attribute.append(formal.default_value)


def without_cast_like(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with plain Casts: the runtime looks for a gradient of CastLike even in its second input."""
    if all(node.op_type != "CastLike" for node in model.graph.node):
        return model
    model = _copy(model)
    trace = trace_constants(model)
    for node in model.graph.node:
        if node.op_type == "CastLike" and trace.dtype(node.input[1]):
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", trace.dtype(node.input[1])))
            del node.input[1:]
    return model


def trace_constants(model: onnx.ModelProto) -> TraceGraph:
    """The index over a model whose weights are graph inputs: what initializers are left are constants, floats too."""
    shapes = ShapeInference(model)
    for tensor in model.graph.initializer:
        shapes.add_constant(tensor.name, numpy_helper.to_array(tensor))
    for node in model.graph.node:
        shapes.step(node)
    return TraceGraph(model, shapes)


def _lower_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Opsets above 21 changed few signatures: inline the operators that are newer, and retag the rest."""
    opset = opset_of(model)
    while True:
        newer = {n.op_type: n for n in model.graph.node if is_standard(n) and not _same_since(n.op_type, opset)}
        for op_type, node in newer.items():
            if not has_body(op_type, opset):
                raise UnsupportedOperatorError(
                    f"{op_type} {node.name!r} of opset {opset} has no form in opset {NEWEST_OPSET}, "
                    "the newest that the training runtime loads",
                    fix=f"Export the model with opset {NEWEST_OPSET} or older.",
                    op_type=op_type,
                    node=node.name,
                )
        if not newer:
            break
        model = inline_bodies(model, newer)
    result = _copy(model)
    for entry in result.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = NEWEST_OPSET
    return result


def _same_since(op_type: str, opset: int) -> bool:
    """Does an operator of a newer opset take and give the same as it does in the newest one that the runtime loads."""
    if not onnx.defs.has(op_type, NEWEST_OPSET):
        return False
    old, new = onnx.defs.get_schema(op_type, NEWEST_OPSET), onnx.defs.get_schema(op_type, opset)
    return (
        [f.name for f in new.inputs] == [f.name for f in old.inputs]
        and len(new.outputs) == len(old.outputs)
        and set(new.attributes) == set(old.attributes)
    )


def is_standard(node: onnx.NodeProto) -> bool:
    """Is the operator one of the ONNX standard."""
    return node.domain in ("", "ai.onnx")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the ONNX standard that the model follows."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=NEWEST_OPSET)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result
