"""What is known of a tensor at one binding of the open dimensions: element type, lengths, and small values.

Facts are interned: equal ones are the same object, so that they compare and hash by identity. That makes inference
memoisable, and a tensor is constant over all bindings where its facts are one object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.generic]
Dims = tuple["int | None", ...]

SMALL = 4096
"""Largest number of elements that counts as shape arithmetic; more is data and is never evaluated."""


@dataclass(frozen=True, slots=True, eq=False)
class Fact:
    """Element type (0: unknown), lengths (None: unknown, all of them or one), value where small and known.

    `hint` is a value that shape inference may look at, but that is never computed with. `other` is a type that is no
    tensor (a sequence, an optional, a map).
    """

    kind: int = 0
    dims: Dims | None = None
    value: Array | None = None
    hint: Array | None = None
    other: onnx.TypeProto | None = None
    complete: bool = False
    """Are the element type and every length known."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The lengths where all of them are known."""
        return self.dims if self.complete or _is_known(self.dims) else None  # type: ignore[return-value]

    @property
    def size(self) -> int:
        """How many elements a complete fact's tensor has."""
        return elements(self.shape or ())

    def type_proto(self) -> onnx.TypeProto | None:
        """The fact as ONNX writes it; None where nothing is known."""
        if self.other is not None or not self.kind:
            return self.other
        return onnx.helper.make_tensor_type_proto(self.kind, self.dims)

    def tensor_proto(self, name: str) -> onnx.TensorProto | None:
        """The value, or what inference may know of it."""
        value = self.value if self.value is not None else self.hint
        if value is None:
            return None
        return numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)


UNKNOWN = Fact()
"""Of a tensor that nothing is known of."""
ABSENT = Fact()
"""Of an optional input that is left out."""


class FactTable:
    """Makes facts, each once."""

    def __init__(self) -> None:
        self._known: dict[object, Fact] = {}
        self.has_empty = False
        """Is there a fact of a tensor of two dimensions or more that has no elements."""

    def of(self, kind: int, dims: Dims | None) -> Fact:
        """The fact of a tensor without a known value."""
        found = self._known.get((kind, dims))
        if found is None:
            found = self._known[kind, dims] = Fact(kind, dims, complete=bool(kind) and _is_known(dims))
            if dims is not None and len(dims) > 1 and not all([length is None or length > 0 for length in dims]):
                self.has_empty = True
        return found

    def of_value(self, value: Array, *, hint: bool = False) -> Fact:
        """The fact of a tensor with a known value; the value of a large one is not kept."""
        kind = kind_of(value.dtype)
        if value.size > SMALL or value.dtype == object:
            return self.of(kind, value.shape)
        key = (kind, value.shape, hint, value.tobytes())
        found = self._known.get(key)
        if found is None:
            kept = None if hint else value
            found = Fact(kind, value.shape, kept, value if hint else None, complete=True)
            self._known[key] = found
        return found

    def of_type(self, kind: onnx.TypeProto) -> Fact:
        """The fact that a type states."""
        if kind.HasField("tensor_type"):
            return self.of(kind.tensor_type.elem_type, dims_of(kind.tensor_type))
        if kind.WhichOneof("value") is None:
            return UNKNOWN
        key = kind.SerializeToString()
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Fact(other=kind)
        return found


def dims_of(kind: onnx.TypeProto.Tensor) -> Dims | None:
    """The lengths that a tensor type states; None at unknown rank."""
    if not kind.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a tensor of that shape has."""
    count = 1
    for length in shape:
        count *= length
    return count


_KINDS: dict[object, int] = {}


def kind_of(dtype: np.dtype[np.generic]) -> int:
    """The ONNX element type of a numpy one."""
    found = _KINDS.get(dtype)
    if found is None:
        found = _KINDS[dtype] = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return found


def _is_known(dims: Dims | None) -> bool:
    return dims is not None and None not in dims
