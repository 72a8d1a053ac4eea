"""What is the same for every exporter's model: cleaned, checked, named, and compared with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import numpy_helper

from onnx_asgnas.converters.agreement import largest_difference, run_onnx
from onnx_asgnas.converters.export import OPSET, Array, Export, Sample
from onnx_asgnas.converters.failing import first_line
from onnx_asgnas.converters.naming import Names, name_parameters
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.graph import remove_dead

_NEWEST_IR = 10
"""The newest IR version that onnxruntime-training loads."""


def finish(export: Export) -> tuple[onnx.ModelProto, Names]:
    """The exporter's model in the form that the other stages read, and what its parameters are called now.

    What the exporter notes about the machine and the source is gone, the model is checked, its shapes are inferred.
    Raises ConversionError when it is not valid ONNX. The export's own model is used up.
    """
    model = export.model
    _strip_traces(model)
    _constants_to_initializers(model.graph)
    _part_merged_parameters(model.graph, export.parameters)
    remove_dead(model.graph)
    _to_operator_set(model)
    names = name_parameters(model, export.parameters)
    return checked(model, export.exporter), names


def checked(model: onnx.ModelProto, exporter: str) -> onnx.ModelProto:
    """The model with the shapes of its tensors; raises ConversionError where it is not valid."""
    try:
        onnx.checker.check_model(model)
        return _with_shapes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as problem:
        raise ConversionError(
            f"what {exporter} has written is not valid ONNX: {first_line(problem)}", fix="Try another version of it."
        ) from problem


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inferred shapes, in place of the exporter's own where these contradict the graph.

    jax2onnx takes Transposes out and leaves the shapes that the tensors between them had.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        if not model.graph.value_info:
            raise
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)


def compare(model: onnx.ModelProto, samples: Sequence[Sample]) -> float | None:
    """The largest relative difference from what the source gave; None where it gave nothing.

    Raises ConversionError, with the figure, where it is more than a float32 export may have.
    """
    fed = {value.name for value in model.graph.input}
    outputs = [value.name for value in model.graph.output]
    found = [
        largest_difference(
            sample.outputs, run_onnx(model, {n: a for n, a in sample.feeds.items() if n in fed}), outputs
        )
        for sample in samples
    ]
    return max(found, default=None)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about the machine and the source: stack traces with paths, and its own names."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    functions = [node for function in model.functions for node in function.node]
    for item in (model, graph, *graph.node, *graph.initializer, *values, *model.functions, *functions):
        del item.metadata_props[:]
        item.ClearField("doc_string")


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Float Constants of one axis or more become initializers: some exporters keep their weights in nodes."""
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is None or not value.dims or value.data_type not in _FLOATS or node.output[0] in outputs:
            kept.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), node.output[0]))
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def _part_merged_parameters(graph: onnx.GraphProto, parameters: Mapping[str, Array]) -> None:
    """Give every parameter its own initializer where the exporter has merged equal ones behind an Identity.

    Equal before any training is not tied: a parameter that the source ties has one name, and stays one.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        merged = node.op_type == "Identity" and node.input[0] in weights and node.output[0] in parameters
        if not merged:
            kept.append(node)
            continue
        own = onnx.TensorProto()
        own.CopyFrom(weights[node.input[0]])
        own.name = node.output[0]
        graph.initializer.append(own)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def _to_operator_set(model: onnx.ModelProto) -> None:
    """Bring the model to the operator set and IR version that can be trained, where they are newer."""
    model.ir_version = min(model.ir_version, _NEWEST_IR)
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version <= _NEWEST_OPSET:
        return
    try:
        model.CopyFrom(onnx.version_converter.convert_version(model, OPSET))
    except Exception as problem:  # the converter raises RuntimeError and more
        raise ConversionError(
            f"the exporter wrote operator set {version}, which cannot be brought to {OPSET}: {first_line(problem)}",
            fix="Try an older version of the exporter.",
        ) from problem


_NEWEST_OPSET = 21
