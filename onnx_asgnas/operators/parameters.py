"""Which initializers train: those in an operator's parameter role, followed back through views of them."""

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


def parameters_of(graph: TraceGraph, index: int, rule: Rule | None) -> tuple[str, ...]:
    """The initializers that train in the parameter roles of one node."""
    if rule is None:
        return ()
    node = graph.nodes[index]
    if graph.activations.isdisjoint(graph.reads[index]):
        return ()
    found: list[str] = []
    for position in rule.parameters:
        if position < len(node.input) and node.input[position]:
            found += weights_behind(graph, node.input[position])
    return tuple(dict.fromkeys(found))


def weights_behind(graph: TraceGraph, name: str) -> tuple[str, ...]:
    """The float initializers that a tensor is computed from by operators on parameters alone; () for an activation."""
    if name in graph.activations:
        return ()
    found: dict[str, None] = {}
    stack, seen = [name], {name}
    while stack:
        tensor = stack.pop()
        if tensor in graph.initializers:
            if graph.initializers[tensor].data_type in _FLOATS:
                found[tensor] = None
        elif tensor in graph.producer:
            more = [n for n in graph.reads[graph.producer[tensor]] if n not in seen]
            seen.update(more)
            stack += more
    return tuple(found)


def trainable_parameters(graph: TraceGraph, rules: Sequence[Rule | None] | None = None) -> tuple[str, ...]:
    """The initializers that train, in the order of their first use; never statistics, masks or scalar constants."""
    rules = rules_of(graph) if rules is None else rules
    found = [name for index, rule in enumerate(rules) for name in parameters_of(graph, index, rule)]
    return tuple(dict.fromkeys(found))
