"""Inputs for a model of the corpus: two sizes of every open dimension, ids that every table has, masks of ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

_BATCHES = (1, 3)
_SHORTER = 5
_LENGTHS = (16, 11)
_IDS = (4, 100)
_HIGHEST_BYTE = 256
_MATRIX = 2


def feeds(
    model: onnx.ModelProto, traced: Mapping[str, Sequence[int]], seed: int = 0, loudness: int = 1
) -> tuple[list[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """The feeds to compare on, and one with the first one's shapes and other values.

    `traced` are the shapes that the model was exported with, by input, where they are known: an open dimension that is
    no batch takes that size, and one a little smaller. A model without open dimensions has one feed. Numbers that are
    no ids are `loudness` times as large as usual.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    rows = _rows_of_tables(model)
    choices = [_sizes(inputs, traced, position) for position in range(2)]
    different = choices[:1] if choices[0] == choices[1] else choices
    made = [_arrays(inputs, sizes, rows, seed + at) for at, sizes in enumerate(different)]
    made.append(_arrays(inputs, choices[0], rows, seed + 100))
    for feed in made if loudness != 1 else ():
        feed.update({name: (a * loudness).astype(a.dtype) for name, a in feed.items() if a.dtype.kind == "f"})
    return made[:-1], made[-1]


def _sizes(
    inputs: Sequence[onnx.ValueInfoProto], traced: Mapping[str, Sequence[int]], position: int
) -> dict[str, list[int]]:
    symbols: dict[str, int] = {}
    return {value.name: _shape(value, traced.get(value.name), symbols, position) for value in inputs}


def _shape(
    value: onnx.ValueInfoProto, traced: Sequence[int] | None, symbols: dict[str, int], position: int
) -> list[int]:
    shape = []
    for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
        if dimension.HasField("dim_value"):
            shape.append(dimension.dim_value)
            continue
        if axis == 0:
            size = _BATCHES[position]
        elif traced:
            size = traced[axis] - _SHORTER * position
        else:
            size = _LENGTHS[position]
        shape.append(symbols.setdefault(dimension.dim_param or f"{value.name}.{axis}", size))
    return shape


def _arrays(
    inputs: Sequence[onnx.ValueInfoProto], sizes: Mapping[str, Sequence[int]], rows: int, seed: int
) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    return {value.name: _values(value, sizes[value.name], rows, random) for value in inputs}


def _values(value: onnx.ValueInfoProto, shape: Sequence[int], rows: int, random: np.random.Generator) -> NDArray[Any]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if "mask" in value.name.lower() or dtype == np.bool_:
        return np.ones(shape, dtype)
    if dtype == np.uint8:
        return random.integers(0, _HIGHEST_BYTE, shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return random.integers(min(_IDS[0], rows - 1), min(_IDS[1], rows), shape).astype(dtype)
    offset = random.standard_normal((*shape[:2], *[1] * (len(shape) - 2)))  # noise alone is the same once averaged
    return (random.standard_normal(shape) + (offset if len(shape) > _MATRIX else 0)).astype(dtype)


def _rows_of_tables(model: onnx.ModelProto) -> int:
    """The rows of the smallest table that any Gather reads, and at least eight: position tables are read by others."""
    tables = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    sizes = [
        tables[node.input[0]][0]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in tables and len(tables[node.input[0]]) > 1
    ]
    return max(8, min((size for size in sizes if size >= _IDS[1]), default=_IDS[1]))
