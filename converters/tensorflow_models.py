"""TensorFlow by tf2onnx: `saved_model:FOLDER`, `tflite:FILE`, and functions `tensorflow:package.module:name`.

tf2onnx writes what grappler leaves of the graph, in which batch normalisations are folded into convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.converters.export import Array, Export, Source, record
from onnx_asgnas.converters.factories import build
from onnx_asgnas.converters.failing import exporter_failed, first_line
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.errors import ConversionError

_OPSET = 18
"""The newest operator set that tf2onnx has."""


def saved_model(source: Source) -> Export:
    """Export the serving signature of a saved model; it says itself what it reads.

    Raises ConversionError for a folder that holds none, and for one without the signature `serving_default`.
    """
    import tensorflow as tf

    _refuse_inputs(source)
    folder = Path(source.body)
    if not (folder / "saved_model.pb").is_file():
        raise ConversionError(f"{folder} is no saved model", fix="Give a folder that holds saved_model.pb.")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as problem:  # errors of TensorFlow's own, of all kinds
        raise ConversionError(
            f"TensorFlow cannot load {folder}: {first_line(problem)}", fix="Save it again."
        ) from problem
    if "serving_default" not in loaded.signatures:
        raise ConversionError(
            f"{folder} has no signature 'serving_default', but: {', '.join(loaded.signatures) or 'none'}",
            fix="Save it with one: tf.saved_model.save(model, folder, signatures=function), or model.export(folder).",
        )
    signature = loaded.signatures["serving_default"]
    names = list(signature.structured_input_signature[1])
    inputs = tuple(_spec(name, signature.structured_input_signature[1][name]) for name in names)

    def call(*arrays: Any) -> Any:
        return list(signature(**dict(zip(names, arrays, strict=True))).values())

    variables = {v.name.removesuffix(":0"): v.numpy() for v in getattr(loaded, "trainable_variables", ())}
    call.owner = loaded  # type: ignore[attr-defined]  # it must outlive the call: variables die with it
    return export_function(call, inputs, variables, _normalisations(signature))


def function(source: Source) -> Export:
    """Export a tf.function, or a function that gives one when it is called without arguments; it needs inputs."""
    import tensorflow as tf
    from tensorflow.types.experimental import GenericFunction

    if not source.inputs:
        raise ConversionError(
            "a tensorflow: source needs to know what the function reads", fix='Add --input "x:float32[N,32,32,3]".'
        )
    found = build(source.body, scheme="tensorflow", kind=(GenericFunction, tf.Module), what="a tf.function")
    variables = {v.name.removesuffix(":0"): v.numpy() for v in getattr(found, "trainable_variables", ())}
    return export_function(found, source.inputs, variables, None)


def tflite(source: Source) -> Export:
    """Export a TensorFlow Lite file; it says itself what it reads, and its batch is fixed."""
    import tensorflow as tf
    import tf2onnx

    _refuse_inputs(source)
    path = Path(source.body)
    if not path.is_file():
        raise ConversionError(f"{path} does not exist", fix="Check the path.", path=str(path))
    try:
        interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        model, _ = tf2onnx.convert.from_tflite(str(path), opset=_OPSET)
    except Exception as problem:  # tf2onnx's own kinds, and the interpreter's
        raise exporter_failed("tf2onnx", problem) from problem
    given = interpreter.get_input_details()
    inputs = tuple(
        InputSpec(name=value.name, dtype=np.dtype(d["dtype"]).name, shape=tuple(map(int, d["shape"])))
        for value, d in zip(model.graph.input, given, strict=True)
    )

    def run(arrays: Sequence[Array]) -> list[Array]:
        for detail, array in zip(given, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]

    names = [value.name for value in model.graph.input]
    return Export(
        model=model,
        exporter=f"tf2onnx {tf2onnx.__version__}",
        samples=record(run, inputs, names),
        notes=("a TensorFlow Lite file has no names of parameters, and its batch is fixed",),
    )


def export_function(
    call: Callable[..., Any], inputs: Sequence[InputSpec], parameters: Mapping[str, Array], normalisations: int | None
) -> Export:
    """Export a function of tensors, one for each input, by way of a tf.function."""
    import tensorflow as tf
    import tf2onnx

    names = [spec.name or f"input_{at}" for at, spec in enumerate(inputs)]
    signature = [
        tf.TensorSpec([None if isinstance(d, str) else d for d in spec.shape], spec.dtype, name=name)
        for spec, name in zip(inputs, names, strict=True)
    ]
    samples = record(lambda arrays: _run(call, arrays), inputs, names)
    traced = tf.function(call, input_signature=signature, autograph=False)
    try:
        model, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=_OPSET)
        _captures_to_initializers(model.graph, traced.get_concrete_function())
    except Exception as problem:  # tf2onnx's own kinds, and TensorFlow's
        raise exporter_failed("tf2onnx", problem) from problem
    for value, spec in zip(model.graph.input, inputs, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            if isinstance(size, str):
                dim.dim_param = size
    return Export(
        model=model,
        exporter=f"tf2onnx {tf2onnx.__version__}",
        samples=samples,
        parameters=parameters,
        normalisations=normalisations,
    )


def _captures_to_initializers(graph: onnx.GraphProto, traced: Any) -> None:
    """Make weights of the constants that a function refers to: tf2onnx has them as further inputs."""
    captured = {inner.name: outer for outer, inner in traced.graph.captures if outer.dtype.is_numpy_compatible}
    own = [value for value in graph.input if value.name not in captured]
    for value in graph.input:
        if value.name in captured:
            graph.initializer.append(onnx.numpy_helper.from_array(captured[value.name].numpy(), value.name))
    del graph.input[:]
    graph.input.extend(own)


def _run(call: Callable[..., Any], arrays: Sequence[Array]) -> list[Array]:
    import tensorflow as tf

    try:
        return [leaf.numpy() for leaf in tf.nest.flatten(call(*map(tf.constant, arrays)))]
    except Exception as problem:  # the user's code
        read = ", ".join(f"{list(array.shape)} {array.dtype}" for array in arrays)
        raise ConversionError(
            f"the function cannot run on {read}: {type(problem).__name__}: {first_line(problem)}",
            fix="Does --input say the shapes, the types and the order that it takes?",
        ) from problem


def _spec(name: str, tensor: Any) -> InputSpec:
    dims = tensor.shape.as_list()
    shape = tuple(("N" if at == 0 else f"D{at}") if d is None else int(d) for at, d in enumerate(dims))
    samples = tuple((d, 32) for d in shape[1:] if isinstance(d, str))
    return InputSpec(name=name, dtype=tensor.dtype.name, shape=shape, samples=samples)


def _normalisations(function: Any) -> int:
    """Batch normalisations of a graph: fused ones, and those that Keras 3 spells out around one Rsqrt."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for each in definition.library.function for node in each.node_def)]
    return sum(node.op.startswith("FusedBatchNorm") or node.name.endswith("batchnorm/Rsqrt") for node in nodes)


def _refuse_inputs(source: Source) -> None:
    if source.inputs:
        raise ConversionError(f"{source.body} says itself what it reads", fix="Leave --input out.")
