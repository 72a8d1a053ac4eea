"""Values of shape arithmetic in numpy: the operators that exporters write around Reshape, Slice, Expand and masks.

An evaluator gets a call whose output lengths are known to be small and whose inputs all have values. What is not here
is left to onnx's reference evaluator, which builds an evaluator for each node and takes far longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.graph.layout_rules import part_of_shape, slices
from onnx_asgnas.graph.shape_rules import Call, Lengths

Values = list[NDArray[Any]]
Evaluator = Callable[[Call, Values, Lengths], "NDArray[Any] | None"]

EVALUATORS: dict[str, Evaluator] = {}
"""By operator of the standard's domain; None means that the case is not covered."""

_PLAIN: dict[int, type[np.generic]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.BOOL: np.bool_,
}


def evaluator(*op_types: str) -> Callable[[Evaluator], Evaluator]:
    """Declare the evaluator of these operators."""

    def register(function: Evaluator) -> Evaluator:
        EVALUATORS.update(dict.fromkeys(op_types, function))
        return function

    return register


_ELEMENTWISE: dict[str, np.ufunc] = {
    "Abs": np.absolute,
    "Add": np.add,
    "And": np.logical_and,
    "Ceil": np.ceil,
    "Equal": np.equal,
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Xor": np.logical_xor,
}


@evaluator(*_ELEMENTWISE)
def _elementwise(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    if len({value.dtype for value in values}) > 1:
        return None
    result: NDArray[Any] = np.asarray(_ELEMENTWISE[call.op_type](*values))
    return result


@evaluator("Div")
def _div(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    one, two = values
    if one.dtype != two.dtype or not two.all():
        return None
    if one.dtype.kind == "f":
        return np.asarray(np.divide(one, two))
    quotient = np.abs(one) // np.abs(two)  # towards zero, as in C
    return np.asarray(np.where((one < 0) != (two < 0), -quotient, quotient).astype(one.dtype))


@evaluator("Mod")
def _mod(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    one, two = values
    if one.dtype != two.dtype or one.dtype.kind not in "iu" or not two.all():
        return None
    return np.asarray(np.fmod(one, two) if call.attributes.get("fmod") else np.mod(one, two))


@evaluator("Max", "Min")
def _extreme(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    if len({value.dtype for value in values}) > 1:
        return None
    choose = np.maximum if call.op_type == "Max" else np.minimum
    result = values[0]
    for value in values[1:]:
        result = np.asarray(choose(result, value))
    return result


@evaluator("Where")
def _where(_: Call, values: Values, __: Lengths) -> NDArray[Any] | None:
    return np.asarray(np.where(*values)) if values[1].dtype == values[2].dtype else None


@evaluator("Identity")
def _identity(_: Call, values: Values, __: Lengths) -> NDArray[Any] | None:
    return values[0]


@evaluator("Reshape", "Unsqueeze", "Squeeze", "Flatten")
def _reshape(_: Call, values: Values, shape: Lengths) -> NDArray[Any] | None:
    return values[0].reshape(shape)


@evaluator("Transpose")
def _transpose(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    return np.transpose(values[0], call.attributes.get("perm"))


@evaluator("Concat")
def _concat(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    return np.asarray(np.concatenate(values, axis=call.attributes["axis"]))


@evaluator("Gather")
def _gather(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    axis = call.attributes.get("axis", 0)
    length = values[0].shape[axis]
    if ((values[1] < -length) | (values[1] >= length)).any():
        return None
    return np.asarray(np.take(values[0], values[1], axis=axis))


@evaluator("Slice")
def _slice(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    cuts = slices(call)
    return None if cuts is None else values[0][cuts]


@evaluator("Expand")
def _expand(_: Call, values: Values, shape: Lengths) -> NDArray[Any] | None:
    return np.broadcast_to(values[0], shape)


@evaluator("Tile")
def _tile(_: Call, values: Values, __: Lengths) -> NDArray[Any] | None:
    return np.tile(values[0], values[1])


@evaluator("Range")
def _range(_: Call, values: Values, __: Lengths) -> NDArray[Any] | None:
    if values[0].dtype.kind != "i":
        return None
    return np.arange(*(int(v.reshape(-1)[0]) for v in values), dtype=values[0].dtype)


@evaluator("ConstantOfShape")
def _constant_of_shape(call: Call, _: Values, shape: Lengths) -> NDArray[Any] | None:
    fill = call.attributes.get("value")
    return np.zeros(shape, np.float32) if fill is None else np.full(shape, numpy_helper.to_array(fill).reshape(-1)[0])


_REDUCE: dict[str, np.ufunc] = {
    "ReduceMax": np.maximum,
    "ReduceMin": np.minimum,
    "ReduceProd": np.multiply,
    "ReduceSum": np.add,
}


@evaluator(*_REDUCE)
def _reduce(call: Call, values: Values, shape: Lengths) -> NDArray[Any] | None:
    axes = call.numbers("axes", 1)
    if values[0].dtype.kind != "i" or (not axes and call.attributes.get("noop_with_empty_axes")) or not values[0].size:
        return None
    along = tuple(axes) if axes else None
    found = np.asarray(_REDUCE[call.op_type].reduce(values[0], axis=along))
    return found.astype(values[0].dtype).reshape(shape)


@evaluator("ScatterND")
def _scatter(call: Call, values: Values, _: Lengths) -> NDArray[Any] | None:
    data, indices, updates = values
    if call.attributes.get("reduction", b"none") != b"none":
        return None
    result: NDArray[Any] = data.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


def evaluate(call: Call, values: Values, kind: int, shape: Lengths) -> NDArray[Any] | None:
    """The first output of the call, of this element type and these lengths; None where no evaluator covers it."""
    if call.op_type in ("Cast", "CastLike"):
        plain = _PLAIN.get(kind)
        safe = plain is not None and values[0].dtype.kind in "fib" and bool(np.isfinite(values[0]).all())
        return values[0].astype(plain) if safe else None
    found = EVALUATORS.get(call.op_type)
    return None if found is None else found(call, values, shape)


def lengths(call: Call) -> NDArray[Any]:
    """What a Shape or a Size gives of an input with known lengths."""
    shape = np.array(call.shape(), np.int64)
    return shape[part_of_shape(call)] if call.op_type == "Shape" else np.array(np.prod(shape, dtype=np.int64))
