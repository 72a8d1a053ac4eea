"""Inputs made up for a model so that it does what it does on real ones: ids within their table, masks of ones."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import Arrays, random_inputs

_PASS_ON = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose output holds values of their input and no others, where ids are looked for."""


def made_up_inputs(graph: TraceGraph, batch: int = 1, seed: int = 0) -> Arrays:
    """Random inputs for the model, an open first dimension being the batch.

    What a Gather takes rows of a table by is a random id of that table. Other inputs are ones where their name says
    that they are masks, whole numbers from 0 to 255 where they are bytes, and else as in `random_inputs`.
    """
    arrays = random_inputs(graph.model, batch, seed, length=graph.open_length)
    rows = table_sizes(graph)
    for position, (name, array) in enumerate(arrays.items()):
        random = np.random.default_rng((seed, position))
        if name in rows:
            arrays[name] = random.integers(0, rows[name], array.shape).astype(array.dtype)
        elif "mask" in name.lower():
            arrays[name] = np.ones_like(array)
        elif array.dtype == np.uint8:
            arrays[name] = random.integers(0, 256, array.shape).astype(array.dtype)
    return arrays


def input_names(model: onnx.ModelProto) -> tuple[str, ...]:
    """What a user feeds: the graph inputs that are no initializers."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(value.name for value in model.graph.input if value.name not in weights)


def table_sizes(graph: TraceGraph) -> dict[str, int]:
    """For each graph input whose values are used as ids: the rows of the smallest table that it is used on."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type != "Gather" or node.input[0] in graph.activations:
            continue
        table = graph.size(node.input[0])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        rows = table[axis] if table else 0
        for name in _inputs_behind(graph, node.input[1]) if rows else ():
            found[name] = min(rows, found.get(name, rows))
    return found


def _inputs_behind(graph: TraceGraph, tensor: str) -> list[str]:
    """The graph inputs whose values reach a tensor unchanged."""
    found, stack, seen = [], [tensor], {tensor}
    while stack:
        name = stack.pop()
        if name in graph.inputs:
            found.append(name)
        elif name in graph.producer:
            node = graph.nodes[graph.producer[name]]
            if node.op_type in _PASS_ON:
                data = node.input if node.op_type == "Concat" else node.input[:1]
                stack += [n for n in data if n not in seen]
                seen.update(data)
    return found
