"""The nine models that ship with onnx, with weights: there they are constant fills, here distinct random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = tuple(sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("*.onnx")))
VARIANCE = 4
"""The place of the running variance among the inputs of a BatchNormalization."""


def light_model(name: str) -> onnx.ModelProto:
    """One of the models; shapes, operator set (9) and IR version (3) are as shipped."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph, random = model.graph, np.random.default_rng(len(name))
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    uses = {source: (node.op_type, at) for node in graph.node for at, source in enumerate(node.input)}
    gain = 6 if "BatchNormalization" in {node.op_type for node in graph.node} else 24  # times the variance 1/12
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
        shape, (made,) = tuple(shapes[node.input[0]].tolist()), node.output
        values = _values(shape, *uses[made], gain, random)
        graph.node.remove(node)
        graph.initializer.append(numpy_helper.from_array(values, made))
        graph.input.append(onnx.helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, shape))  # IR version 3
    return model


def _values(
    shape: tuple[int, ...], op_type: str, place: int, gain: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """Uniform, so that 140 million of them take a second; scaled so that what they sum over neither grows nor fades."""
    values = random.random(shape, np.float32)
    if (op_type == "BatchNormalization" and place in (1, VARIANCE)) or (op_type == "Unsqueeze" and len(shape) == 1):
        return values + np.float32(0.5)
    values -= np.float32(0.5)
    values *= np.float32((gain / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.4)
    return values
