"""Labels of small models: which channels of a tensor leave together, which stay, and a flow around one operator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import rules_of
from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelBook, LabelFlow
from onnx_asgnas.space.coupling import Coupling
from onnx_asgnas.space.grouping import settle
from tests.operators.cutting import Array, model_of


def coupling_of(model: onnx.ModelProto, *, sources: bool = False) -> Coupling:
    """The labels of a model and their groups."""
    graph = TraceGraph.of(model)
    return Coupling.of(graph, rules_of(graph), sources=sources)


def groups_at(coupling: Coupling, tensor: str) -> NDArray[np.int64]:
    """The groups of a tensor's channels, in the shape of its labels, counted as they appear; -1 for what stays."""
    labelled = coupling.book.tensors.get(tensor)
    if labelled is None:
        return np.full((), -1)
    return _counted(coupling.group, coupling.frozen_groups, labelled.ids)


def reasons(coupling: Coupling) -> set[str]:
    """Why channels stay."""
    return {frozen.reason for frozen in coupling.frozen()}


def constants_of(model: onnx.ModelProto) -> list[list[int]]:
    """The lists of whole numbers among the initializers: sizes, places, indices."""
    return [
        onnx.numpy_helper.to_array(tensor).tolist()
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64
    ]


def flow_of(text: str, arrays: Mapping[str, Array] | None = None, opset: int = 17) -> LabelFlow:
    """The flow around the last operator of a model, before any label has moved."""
    graph = TraceGraph.of(model_of(text, arrays or {}, opset))
    return LabelFlow(LabelBook(graph, rules_of(graph)), len(graph.nodes) - 1)


def label(flow: LabelFlow, tensor: str, axes: Mapping[int, int], rank: int, *, zero: bool = True) -> Labelled:
    """Give a tensor a label of its own at each place along these axes, by their lengths."""
    shape = [axes.get(axis, 1) for axis in range(rank)]
    ids = flow.book.axis(f"channels of {tensor}", 0, int(np.prod(shape)), Kind.PRODUCED).reshape(shape)
    flow.book.tensors[tensor] = found = Labelled.of(ids, zero)
    return found


def settled(flow: LabelFlow, ids: Ids) -> NDArray[np.int64]:
    """The groups of labels by the ties and freezes so far, counted as they appear; -1 for what stays."""
    grouping = settle(flow.book)
    return _counted(grouping.group, grouping.frozen, ids)


def _counted(group: Ids, frozen: NDArray[np.bool_], ids: Ids) -> NDArray[np.int64]:
    found = np.where(ids >= 0, group[ids], -1)
    found[(ids >= 0) & frozen[found]] = -1
    number = {-1: -1}
    for value in found.reshape(-1).tolist():
        number.setdefault(value, len(number) - 1)
    return np.vectorize(number.__getitem__, otypes=[np.int64])(found)
