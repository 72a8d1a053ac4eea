"""The full model with what was chosen at zero: what training would give, made without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import zero_of

if TYPE_CHECKING:
    from onnx_asgnas.space.search_space import SearchSpace

__all__ = ["zeroed"]


def zeroed(space: SearchSpace, graph: TraceGraph, chosen: Sequence[int]) -> onnx.ModelProto:
    """A copy of the graph's model in which the chosen groups of the space are exactly zero.

    `chosen` are places among the space's structures and, behind them, its channel groups.
    """
    values: dict[str, NDArray[np.generic]] = {}

    def own(name: str) -> NDArray[np.generic]:
        if name not in values:
            values[name] = np.array(graph.array(name))
        return values[name]

    count = len(space.candidates)
    for index in chosen:
        if index < count:
            for piece in space.candidates[index].group.slices:
                array = own(piece.initializer)
                where = (slice(None),) * (piece.axis or 0) + (list(piece.indices) if piece.axis is not None else ...,)
                array[where] = zero_of(graph, space.parts.rules, piece.initializer)[where]
    numbers = np.array([index - count for index in chosen if index >= count], np.int64)
    if len(numbers):
        mask = np.zeros(space.channels.count + 1, bool)
        mask[numbers] = True
        for axis in space.channels.axes:
            lost = mask[space.channels.numbers_on(axis)]
            if axis.zeroed and lost.any():
                zeros = space.channels.zero_of(axis.owner)
                np.moveaxis(own(axis.owner), axis.axis, 0)[lost] = np.moveaxis(zeros, axis.axis, 0)[lost]
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return model
