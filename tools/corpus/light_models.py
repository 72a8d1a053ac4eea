"""The nine models that the onnx package ships (operator set 9, IR version 3), with weights of their own.

They come without: each weight is a ConstantOfShape. A random initializer takes its place; the graph stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

FAMILY = "onnx light"
EXPORTER = "as shipped"
_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
_MATRIX = 2
_VARIANCE = 4
_LEAST_VARIANCE = 1e-3


def names() -> Iterator[str]:
    """The names of the models."""
    for path in sorted(_FOLDER.glob("*.onnx")):
        yield path.stem


def write(name: str, file: Path) -> dict[str, object]:
    """Write the model with random weights; gives what the index says of it."""
    model = onnx.load(_FOLDER / f"{name}.onnx")
    random = np.random.default_rng(len(name))
    parameters = _fill(model.graph, random)
    _calibrate(model, random)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    return {"parameters": parameters, "opset": model.opset_import[0].version}


def _fill(graph: onnx.GraphProto, random: np.random.Generator) -> int:
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    uses = {name: (node.op_type, at) for node in graph.node for at, name in enumerate(node.input)}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape" and node.input[0] in shapes]
    gain = 1.0 if any(node.op_type == "BatchNormalization" for node in graph.node) else 2.0
    parameters = 0
    for node in made:
        operator, place = uses[node.output[0]]
        values = _values(operator, place, tuple(int(n) for n in shapes[node.input[0]]), gain, random)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.input.append(
            onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, values.shape)
        )  # as IR version 3 asks for
        graph.node.remove(node)
        parameters += values.size
    return parameters


def _values(
    operator: str, place: int, shape: tuple[int, ...], gain: float, random: np.random.Generator
) -> NDArray[np.float32]:
    if len(shape) >= _MATRIX:
        fan_in = int(np.prod(shape[1:]))
        values = random.normal(0.0, (gain / fan_in) ** 0.5, shape)
    elif (operator, place) in (("BatchNormalization", 1), ("BatchNormalization", _VARIANCE), ("Unsqueeze", 0)):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.uniform(-0.2, 0.2, shape)
    return values.astype(np.float32)


def _calibrate(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """Move each batch normalisation's statistics near those of what it normalises, one after another.

    Else the constant part of the activations grows from layer to layer, until the outputs hardly depend on the inputs.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    (fed,) = (value for value in model.graph.input if value.name not in weights)
    _, *sizes = (d.dim_value for d in fed.type.tensor_type.shape.dim)
    images = random.standard_normal((1, *sizes)) + random.standard_normal((1, sizes[0], 1, 1))
    statistics = [name for node in norms for name in node.input[3:5]]
    feeds = {fed.name: images.astype(np.float32)} | {n: numpy_helper.to_array(weights[n]) for n in statistics}
    session = _session(model, statistics, [node.input[0] for node in norms])
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    for node in norms:
        (values,) = session.run([node.input[0]], feeds, options)
        axes = (0, *range(2, values.ndim))
        moments = values.mean(axes), values.var(axes) + _LEAST_VARIANCE
        for name, moment in zip(node.input[3:5], moments, strict=True):
            feeds[name] = (moment * random.uniform(0.8, 1.2, moment.shape)).astype(np.float32)
            weights[name].CopyFrom(numpy_helper.from_array(feeds[name], name))


def _session(model: onnx.ModelProto, fed: list[str], outputs: list[str]) -> onnxruntime.InferenceSession:
    """The model as it stands, taking these weights (each is an input before IR version 4) and giving these tensors."""
    giving = onnx.ModelProto()
    giving.CopyFrom(model)
    for at in reversed([at for at, tensor in enumerate(giving.graph.initializer) if tensor.name in fed]):
        del giving.graph.initializer[at]
    giving.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(giving.SerializeToString(), options, providers=["CPUExecutionProvider"])
