"""Which initializers train: those in an operator's parameter role, followed back through views of them.

Weights in whole numbers do not train, but they count.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.registry import Rule, rules_of

_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators of which only the first input is the weight; the others say how it is quantised."""


def parameters_of(graph: TraceGraph, index: int, rule: Rule | None) -> tuple[str, ...]:
    """The initializers that train in the parameter roles of one node."""
    return tuple(name for name in _behind(graph, index, rule) if graph.initializers[name].data_type in _FLOATS)


def trainable_parameters(graph: TraceGraph, rules: Sequence[Rule | None] | None = None) -> tuple[str, ...]:
    """The initializers that train, in the order of their first use; never statistics, masks or scalar constants."""
    rules = rules_of(graph) if rules is None else rules
    found = [name for index, rule in enumerate(rules) for name in parameters_of(graph, index, rule)]
    return tuple(dict.fromkeys(found))


def counted_parameters(graph: TraceGraph, rules: Sequence[Rule | None] | None = None) -> tuple[str, ...]:
    """The initializers that are the size of a network: those that train, and the quantised weights in their place."""
    rules = rules_of(graph) if rules is None else rules
    found = [name for index, rule in enumerate(rules) for name in _behind(graph, index, rule)]
    return tuple(dict.fromkeys(found))


def weights_behind(graph: TraceGraph, name: str) -> tuple[str, ...]:
    """The weights that a tensor is computed from by operators on parameters alone; () for an activation.

    They are floats, or whole numbers that a DequantizeLinear reads.
    """
    if name in graph.activations:
        return ()
    found: dict[str, None] = {}
    stack, seen = [(name, False)], {name}
    while stack:
        tensor, quantised = stack.pop()
        if tensor in graph.initializers:
            if quantised or graph.initializers[tensor].data_type in _FLOATS:
                found[tensor] = None
        elif tensor in graph.producer:
            node = graph.nodes[graph.producer[tensor]]
            whole = node.op_type in _QUANTISED
            reads = node.input[:1] if whole else graph.reads[graph.producer[tensor]]
            more = [n for n in reads if n not in seen]
            seen.update(more)
            stack += [(n, node.op_type == "DequantizeLinear") for n in more]
    return tuple(found)


def _behind(graph: TraceGraph, index: int, rule: Rule | None) -> tuple[str, ...]:
    """The weights, trainable or quantised, in the parameter roles of one node."""
    node = graph.nodes[index]
    if rule is None or graph.activations.isdisjoint(graph.reads[index]):
        return ()
    found: list[str] = []
    for position in rule.parameters:
        if position < len(node.input) and node.input[position]:
            found += weights_behind(graph, node.input[position])
            if position in rule.quantised and node.input[position] in graph.initializers:
                found.append(node.input[position])
    return tuple(dict.fromkeys(found))
