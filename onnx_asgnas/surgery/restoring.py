"""The trained model as it would be had the removed groups not gone to zero."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.space import SearchSpace

__all__ = ["restored"]


def restored(
    space: SearchSpace, trained: TraceGraph, donor: TraceGraph, structures: Collection[str]
) -> onnx.ModelProto:
    """A copy of the trained model in which what is at zero is as in `donor`, the model before training.

    That is the groups of these structures, by their tensors, and of all channels that are at zero.
    """
    values: dict[str, NDArray[np.generic]] = {}

    def take(name: str, axis: int | None, indices: NDArray[np.int64]) -> None:
        if name not in values:
            values[name] = np.array(trained.array(name))
        where = ... if axis is None else (slice(None),) * axis + (indices,)
        values[name][where] = donor.array(name)[where]

    for candidate in space.candidates:
        if candidate.tensor in structures:
            for piece in candidate.group.slices:
                take(piece.initializer, piece.axis, np.array(piece.indices, np.int64))
    if space.mode != "erase":
        zero = np.append(space.channels.at_zero(trained), False)
        for axis in space.channels.axes:
            lost = zero[space.channels.numbers_on(axis)]
            if axis.zeroed and lost.any():
                take(axis.owner, axis.axis, np.flatnonzero(lost))
    model = onnx.ModelProto()
    model.CopyFrom(trained.model)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return model
