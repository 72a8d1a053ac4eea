"""Checking a model by onnx.checker without handing it the weights: what it needs of them is their type and shape."""

from __future__ import annotations

import onnx
from google.protobuf.message import Message

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.facts import elements
from onnx_asgnas.graph.nodes import is_standard
from onnx_asgnas.graph.weights import bits_of, is_external

_LARGE = 1024
"""Initializers with more elements are shown to the checker as graph inputs."""

_RUNTIMES_OWN = {"SimplifiedLayerNormalization": 2**31, "LayerNormalization": 17, "GroupNormalization": 21}
"""Operators that runtimes have in the standard's domain before the checker has, and the set from which on it does.

onnxruntime's optimiser puts the first two there; GroupNormalization of sets 18 to 20 the checker calls deprecated.
"""

_KINDS = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def check(model: onnx.ModelProto, name: str) -> None:
    """Raise ModelError where the model is not valid; the data of large initializers is not looked at.

    The checker wants a shape of every input and output. Runtimes do not, so here one may be of unknown rank.
    """
    try:
        stub = without_weights(model)
        for value in (*stub.graph.input, *stub.graph.output):
            if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
                value.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(with_own_domain(stub))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise _invalid(name, first_line(error)) from None


def with_own_domain(stub: onnx.ModelProto) -> onnx.ModelProto:
    """The same stub, changed in place, with the runtime's own operators in the runtime's own domain."""
    versions = {o.domain: o.version for o in stub.opset_import}
    own = [n for n in stub.graph.node if n.op_type in _RUNTIMES_OWN and is_standard(n)]
    for node in own:
        if versions.get(node.domain, 1) < _RUNTIMES_OWN[node.op_type]:
            node.domain = "com.microsoft"
    if any(node.domain == "com.microsoft" for node in own) and "com.microsoft" not in versions:
        stub.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return stub


def check_data(model: onnx.ModelProto, name: str) -> None:
    """Raise ModelError where the data of an initializer does not fit its shape, for data in memory."""
    for tensor in model.graph.initializer:
        if is_external(tensor) or not tensor.HasField("raw_data"):
            continue
        expected = (elements(tuple(tensor.dims)) * bits_of(tensor.data_type) + 7) // 8
        found = len(tensor.raw_data)
        if found != expected:
            raise _invalid(name, f"the initializer {tensor.name!r} has {found} bytes, its shape needs {expected}")


def frame_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of everything but nodes, initializers and functions."""
    frame = onnx.ModelProto()
    _copy_fields(model, frame, {"graph", "functions"})
    _copy_fields(model.graph, frame.graph, {"node", "initializer"})
    return frame


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as it is, but with large initializers and constants as graph inputs of their type and shape."""
    stub = frame_of(model)
    stub.functions.extend(model.functions)
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if not is_large(tensor):
            stub.graph.initializer.append(tensor)
        elif tensor.name not in given:
            stub.graph.input.append(value_info(tensor.name, tensor))
    constants = {at for at, node in enumerate(model.graph.node) if is_large_constant(node)}
    for at in constants:
        node = model.graph.node[at]
        value = next(a.t for a in node.attribute if a.name == "value")
        stub.graph.input.append(value_info(node.output[0], value))
    kept = (node for at, node in enumerate(model.graph.node) if at not in constants)
    stub.graph.node.extend(kept if constants else model.graph.node)
    return stub


def is_large_constant(node: onnx.NodeProto) -> bool:
    """Is it a Constant whose value is large."""
    if node.op_type != "Constant" or not is_standard(node) or len(node.output) != 1:
        return False
    return any(a.name == "value" and a.HasField("t") and is_large(a.t) for a in node.attribute)


def is_large(tensor: onnx.TensorProto) -> bool:
    """Is its data to be kept out of what is only about structure."""
    if is_external(tensor):
        return True
    dims = tuple(tensor.dims)
    return bool(dims) and elements(dims) > _LARGE and min(dims, default=1) > 0 and tensor.data_type in _KINDS


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def value_info(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    """What a graph input of the type and shape of an initializer is."""
    value = onnx.ValueInfoProto(name=name)
    kind = value.type.tensor_type
    kind.elem_type = tensor.data_type
    kind.shape.SetInParent()
    for length in tensor.dims:
        kind.shape.dim.add().dim_value = length
    return value


def _copy_fields(source: Message, target: Message, leave: set[str]) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name in leave:
            continue
        if isinstance(value, Message):
            getattr(target, descriptor.name).CopyFrom(value)
        elif hasattr(value, "append"):
            getattr(target, descriptor.name).extend(value)
        else:
            text = isinstance(value, bytes)  # protobuf gives bytes where text is not UTF-8, and does not take them back
            setattr(target, descriptor.name, value.decode("utf-8", "replace") if text else value)


def _invalid(name: str, reason: str) -> ModelError:
    return ModelError(f"{name} is not a valid ONNX model: {reason}", fix="Export it again.", path=name)
