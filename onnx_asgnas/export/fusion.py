"""Activations that exporters take apart: x · sigmoid(x) is a SiLU, x · (1 + erf(x/√2)) / 2 is a GELU."""

from __future__ import annotations

import math

import numpy as np

from onnx_asgnas.export.code import Ref, Step, call
from onnx_asgnas.export.scopes import Scope
from onnx_asgnas.graph import TraceGraph


def fused_activations(graph: TraceGraph, scopes: list[Scope]) -> dict[int, Step | None]:
    """For every node of such an activation: the step, at its last node, and None at the others."""
    found: dict[int, Step | None] = {}
    for index, node in enumerate(graph.nodes):
        match = None
        if node.op_type == "Sigmoid":
            match = _silu(graph, index)
        elif node.op_type == "Erf":
            match = _gelu(graph, index)
        if match is None:
            continue
        data, name, module, nodes = match
        last = max(nodes)
        found.update(dict.fromkeys(nodes))
        outputs = tuple(graph.nodes[last].output)
        found[last] = Step(outputs, call(name, Ref(data)), scopes[last], call(module), data)
    return found


_Match = tuple[str, str, str, list[int]]


def _silu(graph: TraceGraph, index: int) -> _Match | None:
    data = graph.nodes[index].input[0]
    product = _reader(graph, index, "Mul")
    if product is None or set(graph.nodes[product].input) != {data, graph.nodes[index].output[0]}:
        return None
    return data, "F.silu", "nn.SiLU", [index, product]


def _gelu(graph: TraceGraph, index: int) -> _Match | None:
    scaled = graph.producer.get(graph.nodes[index].input[0])
    if scaled is None or len(graph.consumers[graph.nodes[index].input[0]]) != 1:
        return None
    root = graph.nodes[scaled]
    factor = {"Div": math.sqrt(2), "Mul": math.sqrt(0.5)}.get(root.op_type)
    if factor is None or not _is_number(graph, root.input[1], factor):
        return None
    data, plus = root.input[0], _reader(graph, index, "Add")
    if plus is None or not _is_number(graph, _other(graph, plus, graph.nodes[index].output[0]), 1.0):
        return None
    first = _reader(graph, plus, "Mul")
    if first is None:
        return None
    other = _other(graph, first, graph.nodes[plus].output[0])
    if other == data:  # x · (1 + erf), then the half
        second = _reader(graph, first, "Mul")
        if second is None or not _is_number(graph, _other(graph, second, graph.nodes[first].output[0]), 0.5):
            return None
        return data, "F.gelu", "nn.GELU", [scaled, index, plus, first, second]
    half = graph.producer.get(other)
    if half is None or graph.nodes[half].op_type != "Mul" or len(graph.consumers[other]) != 1:
        return None
    if data not in graph.nodes[half].input or not _is_number(graph, _other(graph, half, data), 0.5):
        return None
    return data, "F.gelu", "nn.GELU", [scaled, index, plus, half, first]


def _reader(graph: TraceGraph, index: int, op_type: str) -> int | None:
    """The one node of that type that reads what a node gives, where nothing else does."""
    name = graph.nodes[index].output[0]
    readers = graph.consumers.get(name, [])
    if len(readers) != 1 or graph.is_output(name) or graph.nodes[readers[0]].op_type != op_type:
        return None
    return readers[0]


def _other(graph: TraceGraph, index: int, name: str) -> str:
    return next((each for each in graph.nodes[index].input if each != name), "")


def _is_number(graph: TraceGraph, name: str, number: float) -> bool:
    if name not in graph.initializers or math.prod(graph.initializers[name].dims) != 1:
        return False
    return bool(np.isclose(graph.array(name).reshape(-1)[0].astype(np.float64), number, rtol=1e-6))
