"""The file of weights beside the code."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.export.code import Stored
from onnx_asgnas.graph import TraceGraph


def write_weights(graph: TraceGraph, tensors: Mapping[str, Stored], path: str | os.PathLike[str]) -> None:
    """Write the values as safetensors; those of external data are read from their files as they are written."""
    from safetensors.numpy import save_file

    arrays = {name: _array(graph, stored) for name, stored in sorted(tensors.items())}
    save_file(arrays, path)


def _array(graph: TraceGraph, stored: Stored) -> NDArray[np.generic]:
    if stored.number is not None:
        return np.array(stored.number, np.int64)
    array = graph.array(stored.initializer)
    return np.ascontiguousarray(array.T if stored.transposed else array).reshape(
        array.T.shape if stored.transposed else array.shape
    )
