"""Weights in whole numbers: what stands for zero in them, and the numbers that they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.registry import Quantised, Rule

Values = NDArray[np.generic]

_MOVERS = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that give values of their input and no others."""
_ZERO_POINTS = {
    "QGemm": 8,
    "QLinearAdd": 7,
    "QLinearAveragePool": 4,
    "QLinearConcat": 1,
    "QLinearConv": 7,
    "QLinearGlobalAveragePool": 4,
    "QLinearLeakyRelu": 4,
    "QLinearMatMul": 7,
    "QLinearMul": 7,
    "QLinearSigmoid": 4,
    "QuantizeLinear": 2,
}
"""Operators that quantise what they give, and the input that is its zero point."""


def zero_of(graph: TraceGraph, rules: Sequence[Rule | None], name: str) -> Values:
    """What stands for zero in an initializer, broadcast to its shape: its zero point where it is quantised, or 0."""
    dims, found = tuple(graph.initializers[name].dims), _read_as(graph, rules, name)
    values = None if found is None else _values(graph, found[0], found[1].zero_point, found[1], dims)
    return np.broadcast_to(np.zeros((), np.int8) if values is None else values, dims)


def dequantised(graph: TraceGraph, rules: Sequence[Rule | None], name: str) -> Values:
    """The numbers that an initializer stands for: itself, or (q - zero point) · scale where it is quantised."""
    values, found = graph.array(name), _read_as(graph, rules, name)
    if found is None:
        return values
    node, how = found
    zero, scale = (_values(graph, node, at, how, values.shape) for at in (how.zero_point, how.scale))
    result = values.astype(np.float64) - (0.0 if zero is None else zero.astype(np.float64))
    return result if scale is None else result * scale.astype(np.float64)


def _read_as(graph: TraceGraph, rules: Sequence[Rule | None], name: str) -> tuple[int, Quantised] | None:
    """The node that reads an initializer as a quantised weight, and how."""
    for index in graph.consumers.get(name, ()):
        rule = rules[index]
        for position, how in () if rule is None else rule.quantised.items():
            if graph.nodes[index].input[position] == name:
                return index, how
    return None


def _values(
    graph: TraceGraph, node: int, position: int | None, how: Quantised, shape: tuple[int, ...]
) -> Values | None:
    """A scale or zero point so that it broadcasts to the weight; None where there is none, or it is computed."""
    inputs = graph.nodes[node].input
    if position is None or position >= len(inputs) or inputs[position] not in graph.initializers:
        return None
    values = graph.array(inputs[position])
    if values.size == 1:
        return values.reshape(())
    axis = how.axis % len(shape)
    if values.ndim == 1:
        return values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.repeat(values, how.block, axis).take(range(shape[axis]), axis) if how.block else values


def same_zero(graph: TraceGraph, name: str, zero_point: str) -> bool:
    """Is a tensor of whole numbers zero, in the dequantised sense, at this zero point ("" for none, which is 0)."""
    found = _zero_point_behind(graph, name)
    if found is None or found == zero_point:
        return found is not None
    number = _number(graph, found)
    return number is not None and number == _number(graph, zero_point)


def _number(graph: TraceGraph, zero_point: str) -> float | None:
    """The value of a zero point that is one number; None where it is several, or computed."""
    if not zero_point:
        return 0
    if zero_point not in graph.initializers:
        return None
    values = graph.array(zero_point)
    return float(values.reshape(())) if values.size == 1 else None


def _zero_point_behind(graph: TraceGraph, name: str) -> str | None:
    """The zero point of what quantised a tensor, "" for 0; None where that is not known."""
    stack, found, seen = [name], set[str](), set[str]()
    moved = False
    while stack:
        tensor = stack.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor in graph.initializers:
            found.add("")
            continue
        node = graph.nodes[graph.producer[tensor]] if tensor in graph.producer else None
        if node is None:
            return None
        if node.op_type in _ZERO_POINTS:
            at = _ZERO_POINTS[node.op_type]
            found.add(node.input[at] if len(node.input) > at else "")
        elif node.op_type == "DynamicQuantizeLinear":
            found.add(node.output[2])
        elif node.op_type == "Gather":
            stack.append(node.input[0])
        elif node.op_type in _MOVERS:
            moved = True
            stack += node.input if node.op_type == "Concat" else node.input[:1]
        else:
            return None
    (only,) = found if len(found) == 1 else (None,)
    several = only in graph.initializers and graph.array(only).size > 1
    return None if moved and several else only
