"""The values of initializers: in memory, or in files beside the model and read only when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.facts import elements
from onnx_asgnas.graph.nodes import WITH_SUBGRAPHS, is_standard, subgraphs

LIMIT = 2**31 - 2**20
"""What fits into one protobuf message, with room for what is not weights."""

_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
"""Element types of which several share a byte."""

_PLAIN: dict[int, np.dtype[np.generic]] = {
    kind: onnx.helper.tensor_dtype_to_np_dtype(kind).newbyteorder("<")
    for kind in (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.BOOL)
}
"""How raw data of the usual element types reads as numpy."""

_WITH_TENSORS = frozenset({"Constant", "ConstantOfShape"})
"""Of the standard's operators, those that have an attribute that is a tensor."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bytes of a tensor lie."""

    path: Path
    offset: int
    length: int


@dataclass(slots=True)
class Weights:
    """Reads initializers; `folder` is where the files of external data lie."""

    folder: Path | None = None
    name: str = "the given model"
    _files: dict[Path, NDArray[np.uint8]] = field(default_factory=dict)

    def array(self, tensor: TensorProto) -> NDArray[np.generic]:
        """The values of a tensor; those of external data are mapped into memory, read-only.

        Raises ModelError where the data is missing or does not fit the shape.
        """
        if not is_external(tensor):
            try:
                plain = _PLAIN.get(tensor.data_type)
                if plain is not None and tensor.HasField("raw_data"):  # what to_array does, in a tenth of the time
                    return np.frombuffer(tensor.raw_data, plain).reshape(tuple(tensor.dims))
                return numpy_helper.to_array(tensor)
            except (ValueError, TypeError) as error:
                raise self._damaged(tensor, str(error)) from None
        data, dtype = self._bytes(tensor), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if bits_of(tensor.data_type) < 8:
            packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=data.tobytes())
            return numpy_helper.to_array(packed)
        if data.size != elements(tuple(tensor.dims)) * dtype.itemsize:
            raise self._damaged(tensor, f"{data.size} bytes do not fit its shape {list(tensor.dims)}")
        return data.view(dtype.newbyteorder("<") if dtype.itemsize > 1 and dtype.kind in "fiuc" else dtype).reshape(
            tuple(tensor.dims)
        )

    def into(self, target: TensorProto, tensor: TensorProto, name: str) -> None:
        """Write a tensor with its data into another, empty one, under this name."""
        if is_external(tensor):
            describe(target, tensor)
            target.raw_data = self._bytes(tensor).tobytes()
        else:
            target.CopyFrom(tensor)
        target.name = name

    def check(self, tensors: Iterable[TensorProto]) -> None:
        """Raise ModelError for external data that is missing, lies outside of the folder or is too short."""
        external = [tensor for tensor in tensors if is_external(tensor)]
        if external and self.folder is None:
            wanted = sorted({_entries(tensor).get("location", "") for tensor in external})
            raise ModelError(
                f"{self.name} keeps its weights in other files ({', '.join(wanted[:3])})",
                fix="Give the model's path, so that they can be found beside it.",
            )
        paths = {place.path for tensor in external if not (place := self._place(tensor)).path.is_file()}
        names = sorted(str(path.relative_to((self.folder or Path()).resolve())) for path in paths)
        if names:
            raise ModelError(
                f"{self.name} needs external data that is missing: {', '.join(names[:3])}",
                fix=f"Put the file into {self.folder}.",
                path=self.name,
            )
        for tensor in external:
            place = self._place(tensor)
            expected = (elements(tuple(tensor.dims)) * bits_of(tensor.data_type) + 7) // 8
            if place.path.stat().st_size < place.offset + place.length or place.length != expected:
                raise ModelError(
                    f"the external data of {self.name} cannot be read: that of {tensor.name!r} is cut short",
                    fix="Copy the files again.",
                    path=self.name,
                )

    def _bytes(self, tensor: TensorProto) -> NDArray[np.uint8]:
        place = self._place(tensor)
        if not place.length:
            return np.zeros(0, np.uint8)
        found = self._files.get(place.path)
        if found is None:
            try:
                found = self._files[place.path] = np.memmap(place.path, np.uint8, "r")
            except (OSError, ValueError) as error:
                raise self._damaged(tensor, str(error)) from None
        return found[place.offset : place.offset + place.length]

    def _place(self, tensor: TensorProto) -> _Place:
        entries = _entries(tensor)
        folder = (self.folder or Path()).resolve()
        path = (folder / entries.get("location", "")).resolve()
        try:
            offset = int(entries.get("offset", 0))
            rest = path.stat().st_size - offset if path.is_file() else 0
            length = int(entries.get("length", rest))
        except ValueError:
            raise self._damaged(tensor, "its place in the file is no number") from None
        if not path.is_relative_to(folder) or offset < 0 or length < 0:
            raise self._damaged(tensor, f"{entries.get('location')!r} lies outside of the model's folder")
        return _Place(path, offset, length)

    def _damaged(self, tensor: TensorProto, reason: str) -> ModelError:
        brief = reason.partition("\n")[0]
        return ModelError(
            f"the initializer {tensor.name!r} of {self.name} cannot be read: {brief}",
            fix="Export or copy the model again.",
        )


def is_external(tensor: TensorProto) -> bool:
    """Does the data of this tensor lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


@cache
def bits_of(kind: int) -> int:
    """How many bits an element takes; 8 for a type that there is not."""
    if kind not in TensorProto.DataType.values() or kind == TensorProto.UNDEFINED:
        return 8
    name = TensorProto.DataType.Name(kind)
    return _BITS.get(name) or onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize * 8


def bytes_of(tensor: TensorProto) -> int:
    """How many bytes the values of a tensor take, from its shape; a guess for text."""
    count = elements(tuple(tensor.dims))
    return count * 16 if tensor.data_type == TensorProto.STRING else (count * bits_of(tensor.data_type) + 7) // 8


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph: initializers, those of attributes, and all of them in subgraphs."""
    yield from graph.initializer
    yield from inner_tensors_of(graph)


def inner_tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The tensors of a graph's attributes, and all of its subgraphs."""
    for node in graph.node:
        op_type = node.op_type
        if op_type not in _WITH_TENSORS and op_type not in WITH_SUBGRAPHS and is_standard(node):
            continue
        if op_type not in WITH_SUBGRAPHS:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
        for inner in subgraphs(node):
            yield from tensors_of(inner)


def describe(target: TensorProto, tensor: TensorProto) -> None:
    """Write into an empty tensor all that is known of another but its data."""
    target.name, target.data_type = tensor.name, tensor.data_type
    target.dims.extend(tensor.dims)
    target.metadata_props.extend(tensor.metadata_props)
    if tensor.HasField("doc_string"):
        target.doc_string = tensor.doc_string


def refer(tensor: onnx.TensorProto, **entries: object) -> None:
    """Say in an empty tensor where its data lies."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}
