"""Shapes of every tensor, and the values of shape arithmetic, at two bindings of the symbolic dimensions.

A dimension that the model leaves open (batch, length, size) is bound to one number and then to another. What comes out
equal both times does not depend on it: a shape entry is then a number, a value of shape arithmetic is then a constant.
A third binding, odd sizes that no two dimensions share, catches what is equal by chance (N // 4 is zero at one and at
two, height % 32 at 64 and at 96). A network may refuse such sizes; where it does, the first two decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

logger = logging.getLogger(__name__)

Shape = tuple[int | None, ...]

_BATCH = (1, 2)
"""Sizes that an open first dimension is bound to."""
_OTHER = (64, 96)
"""Sizes that any other open dimension is bound to: multiples of the usual strides."""
_PRIMES = (67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179)
"""Sizes of open dimensions in the third binding, a different one for each as far as they reach."""
_SCALES = 8
"""Float initializers up to this size (the scales of a Resize) are shown to shape inference, but never evaluated."""
_SMALL = 4096
"""Largest number of elements that counts as shape arithmetic; more is data and is never evaluated."""


@dataclass(slots=True)
class Binding:
    """What is known at one binding: tensor types by name (a missing name is unknown), and values of small tensors."""

    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    values: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor with every dimension a number, or None where that is not known."""
        kind = self.types.get(name)
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


class ShapeInference:
    """Node-by-node inference in topological order, at both bindings at once.

    Weights stay out of it: float initializers are known by type only, so a parameter is never mistaken for a constant.
    The exception are `constants`, which the source wrote as such: scales of a Resize, or the bias that is not there.
    """

    def __init__(self, model: onnx.ModelProto, constants: Collection[str] = ()) -> None:
        self._opsets = {o.domain or "": o.version for o in model.opset_import}
        self._imports = list(model.opset_import)
        self._ir_version = model.ir_version
        weights = {t.name for t in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        first, second, third = Binding(), Binding(), Binding()
        if not any(_is_open(dim) for value in inputs for dim in value.type.tensor_type.shape.dim):
            second = third = first
        self.bindings = (first, second)
        self._probe = third
        self._distinct = tuple({id(binding): binding for binding in (first, second, third)}.values())
        self._scales: dict[str, onnx.TensorProto] = {}
        for tensor in model.graph.initializer:
            self.add_initializer(tensor)
            if tensor.name in constants and elements(tuple(tensor.dims)) <= _SMALL:
                self.add_constant(tensor.name, numpy_helper.to_array(tensor))
        symbols: dict[str, int] = {}
        for value in inputs:
            third.types[value.name] = _bind(value.type, lambda axis, symbol: _prime(symbols, axis, symbol))
            second.types[value.name] = _bind(value.type, lambda axis, _: (_OTHER if axis else _BATCH)[1])
            first.types[value.name] = _bind(value.type, lambda axis, _: (_OTHER if axis else _BATCH)[0])

    def add_initializer(self, tensor: onnx.TensorProto) -> None:
        """Make an initializer known: its type, and its value where it is small and no float."""
        kind = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        value = numpy_helper.to_array(tensor) if _is_shape_data(tensor) else None
        if tensor.data_type == onnx.TensorProto.FLOAT and elements(tuple(tensor.dims)) <= _SCALES:
            self._scales[tensor.name] = tensor
        for binding in self._distinct:
            binding.types[tensor.name] = kind
            if value is not None:
                binding.values[tensor.name] = value

    def add_constant(self, name: str, value: NDArray[np.generic]) -> None:
        """Make a tensor known by value at both bindings."""
        kind = onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
        for binding in self._distinct:
            binding.types[name] = kind
            if value.size <= _SMALL:
                binding.values[name] = value

    def step(self, node: onnx.NodeProto) -> None:
        """Infer the outputs of one node whose inputs have been seen."""
        for binding in self._distinct:
            if not self._evaluate(node, binding):
                self._infer(node, binding)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """The value of a tensor where it is known and the same at both bindings."""
        first, second = (b.values.get(name) for b in self.bindings)
        if first is None or second is None:
            return None
        others = [second] + [value for value in [self._probe.values.get(name)] if value is not None]
        return first if all(_same(first, other) for other in others) else None

    def varying(self, name: str) -> NDArray[np.bool_] | None:
        """Which entries of a known tensor depend on an open dimension; None where it is unknown, or its shape does."""
        first, second = (b.values.get(name) for b in self.bindings)
        if first is None or second is None or first.shape != second.shape:
            return None
        probe = self._probe.values.get(name, first)
        return (first != second) | (first != probe) if probe.shape == first.shape else None

    def copies(self, name: str, position: int, tensor: str, axis: int) -> bool:
        """Is this entry of a known tensor the length of that axis, whatever the open dimensions are."""
        for binding in self._distinct:
            value, shape = binding.values.get(name), binding.shape(tensor)
            if value is None or shape is None:
                if binding is not self._probe:
                    return False
            elif axis >= len(shape) or value[position] != shape[axis]:
                return False
        return True

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, None for a dimension that differs between the bindings; None at unknown rank."""
        first, second = (b.shape(name) for b in self.bindings)
        if first is None or second is None or len(first) != len(second):
            return None
        third = self._probe.shape(name)
        if third is None or len(third) != len(first):
            third = first
        return tuple(a if a == b == c else None for a, b, c in zip(first, second, third, strict=True))

    def _evaluate(self, node: onnx.NodeProto, binding: Binding) -> bool:
        """Compute the outputs of shape arithmetic; False for any other node, which is then to be inferred."""
        if node.op_type in ("Shape", "Size") and _is_standard(node):
            shape = binding.shape(node.input[0])
            if shape is None:
                return False
            attributes = {a.name: a.i for a in node.attribute}
            part = shape[slice(attributes.get("start", 0), attributes.get("end"))]
            value = part if node.op_type == "Shape" else np.prod(shape, dtype=np.int64)
            self._store(node, [np.array(value, dtype=np.int64)], binding)
            return True
        if node.op_type == "CastLike" and _is_standard(node):
            return self._cast_like(node, binding.values.get(node.input[0]), binding)
        if not _is_computable(node) or any(name and name not in binding.values for name in node.input):
            return False
        self._infer(node, binding)
        if all(elements(binding.shape(name) or (0,)) <= _SMALL for name in node.output if name):
            feeds = {name: binding.values[name] for name in node.input if name}
            try:
                self._store(node, ReferenceEvaluator(node, opsets=self._opsets).run(None, feeds), binding)
            except Exception as error:  # whatever the reference raises for what it does not have: no value is known
                logger.debug("%s '%s' is not evaluated: %s", node.op_type, node.name, error)
        return True

    def _cast_like(self, node: onnx.NodeProto, value: NDArray[np.generic] | None, binding: Binding) -> bool:
        """CastLike knows its result from the type of the second input alone."""
        kind = binding.types.get(node.input[1])
        if value is None or kind is None or not kind.tensor_type.elem_type:
            return False
        self._store(node, [value.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))], binding)
        return True

    def _store(self, node: onnx.NodeProto, values: Iterable[object], binding: Binding) -> None:
        for name, value in zip(node.output, values, strict=False):
            if name and isinstance(value, np.ndarray | np.generic):
                array = np.asarray(value)
                binding.values[name] = array
                dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                binding.types[name] = onnx.helper.make_tensor_type_proto(dtype, list(array.shape))

    def _known(self, node: onnx.NodeProto, binding: Binding) -> dict[str, onnx.TensorProto]:
        """What shape inference may know by value of a node's inputs."""
        values = {
            n: numpy_helper.from_array(np.asarray(v), n) for n in node.input if (v := binding.values.get(n)) is not None
        }
        return values | {name: self._scales[name] for name in node.input if name in self._scales}

    def _infer(self, node: onnx.NodeProto, binding: Binding) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
            inferred = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {name: binding.types[name] for name in node.input if name in binding.types},
                self._known(node, binding),
                opset_imports=self._imports,
                ir_version=self._ir_version,
            )
        except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError, KeyError):
            return  # not in the standard, or fed by something unknown: the outputs stay unknown
        binding.types.update(inferred)


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a tensor of that shape has."""
    return int(np.prod(shape, dtype=np.int64))


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _is_computable(node: onnx.NodeProto) -> bool:
    """Is it an operator with inputs, without subgraphs, that gives the same whenever it is run."""
    random = "Random" in node.op_type or node.op_type in ("Bernoulli", "Multinomial")
    subgraphs = any(a.HasField("g") or a.graphs for a in node.attribute)
    return _is_standard(node) and bool(node.input) and not random and not subgraphs


def _is_shape_data(tensor: onnx.TensorProto) -> bool:
    integral = tensor.data_type in (
        onnx.TensorProto.INT64,
        onnx.TensorProto.INT32,
        onnx.TensorProto.BOOL,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT8,
    )
    return integral and int(np.prod(tensor.dims, dtype=np.int64)) <= _SMALL


def _same(one: NDArray[np.generic], two: NDArray[np.generic]) -> bool:
    kinds = one.shape == two.shape and one.dtype == two.dtype
    return kinds and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return not dim.HasField("dim_value") or dim.dim_value <= 0


def _prime(symbols: dict[str, int], axis: int, symbol: str) -> int:
    """The size of an open dimension in the third binding: its own, the same wherever its name stands."""
    key = symbol or (f"unnamed {len(symbols)}" if axis else "unnamed batch")
    return _PRIMES[symbols.setdefault(key, len(symbols)) % len(_PRIMES)]


def _bind(kind: onnx.TypeProto, size: Callable[[int, str], int]) -> onnx.TypeProto:
    """A type with its open dimensions bound: `size` is asked with the axis and the name of each."""
    bound = onnx.TypeProto()
    bound.CopyFrom(kind)
    if bound.HasField("tensor_type"):
        for axis, dim in enumerate(bound.tensor_type.shape.dim):
            if _is_open(dim):
                dim.dim_value = size(axis, dim.dim_param)
    return bound
