"""Running a model in onnxruntime as it is written: inputs made up from its signature, any tensor as an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.checks import frame_of
from onnx_asgnas.graph.packages import import_onnxruntime
from onnx_asgnas.graph.weights import LIMIT, bytes_of, refer, tensors_of

Arrays = dict[str, NDArray[Any]]

_LARGE = 2**16
"""Bytes from which on a weight is handed to the runtime beside the model, where the model is over 2 GB."""
_HANDED_OVER = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32)
_FATAL_ONLY = 4
"""onnxruntime's log level: its errors reach the user as ours, not as lines of its own on stderr."""


def session(
    model: onnx.ModelProto, *, optimised: bool = False, threads: int | None = None, outputs: Sequence[str] = ()
) -> Any:
    """An onnxruntime session on the CPU; without `optimised` the graph runs node by node as it stands.

    `outputs` adds tensors to what the model gives. Raises ModelError where the runtime refuses the model.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    given = {value.name for value in model.graph.output}
    more = [name for name in outputs if name not in given]
    message, held = _message(model, more, onnxruntime)
    if held:
        options.add_external_initializers(list(held), list(held.values()))
    try:
        active = onnxruntime.InferenceSession(message, options, providers=["CPUExecutionProvider"])
        active.held_weights = held  # it reads them where they are
        return active
    except Exception as error:  # onnxruntime's own exception classes share no base but Exception
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} refuses the model: {_brief(error)}",
            fix="It loads operator sets up to 21 and IR versions up to 10: export for those.",
        ) from None


def _message(model: onnx.ModelProto, outputs: Sequence[str], onnxruntime: Any) -> tuple[bytes, dict[str, Any]]:
    """The model as bytes, with more outputs; and the large weights apart where one message cannot hold all."""
    if sum(map(bytes_of, tensors_of(model.graph))) < LIMIT:
        if outputs:
            wider = onnx.ModelProto()
            wider.CopyFrom(model)
            wider.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
            model = wider
        return model.SerializeToString(), {}
    frame = frame_of(model)
    frame.functions.extend(model.functions)
    frame.graph.node.extend(model.graph.node)
    frame.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    held = {}
    for tensor in model.graph.initializer:
        if bytes_of(tensor) < _LARGE or tensor.data_type not in _HANDED_OVER:
            frame.graph.initializer.add().CopyFrom(tensor)
            continue
        held[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(onnx.numpy_helper.to_array(tensor))
        empty = frame.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        refer(empty, location="memory")
    return frame.SerializeToString(), held


def run(session: Any, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
    """The outputs by name; raises ModelError where the network refuses the inputs."""
    names = list(outputs) if outputs is not None else [o.name for o in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:  # as above
        shapes = ", ".join(f"{name}{list(value.shape)}" for name, value in inputs.items())
        raise ModelError(
            f"the network refuses the inputs {shapes}: {_brief(error)}", fix="Check their shapes."
        ) from None


def random_inputs(model: onnx.ModelProto, batch: int = 1, seed: int = 0, length: int = 64) -> Arrays:
    """Made-up inputs that fit the model: normal floats, small non-negative integers, true masks.

    A dimension with the name of an open first dimension, and every other open first one, is the batch; other open
    dimensions are `length`.
    """
    random = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    batch_names = {v.type.tensor_type.shape.dim[0].dim_param for v in inputs if v.type.tensor_type.shape.dim} - {""}
    return {value.name: _random(value, batch, batch_names, length, random) for value in inputs}


def _random(
    value: onnx.ValueInfoProto, batch: int, batch_names: set[str], length: int, random: np.random.Generator
) -> NDArray[Any]:
    kind = value.type.tensor_type
    dims = [
        d.dim_value or (batch if axis == 0 or d.dim_param in batch_names else length)
        for axis, d in enumerate(kind.shape.dim)
    ]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if dtype == np.bool_:
        return np.ones(dims, dtype)
    if np.issubdtype(dtype, np.integer):
        return random.integers(0, 2, dims).astype(dtype)
    return random.standard_normal(dims).astype(dtype)


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300]
