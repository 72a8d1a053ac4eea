"""A node seen as another operator: fusions and quantised forms say in other words what an operator here says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Declaration, Op, Rule

_OWN = frozenset({"activation", "activation_alpha", "activation_beta", "activation_gamma", "activation_params"})
"""Attributes of fusions that the operator which they are seen as does not have."""


def recast(op: Op, declare: Declaration, op_type: str, inputs: Sequence[int], **attributes: Any) -> Rule:
    """The rule of a node that reads `inputs` of its own in the way in which `op_type` reads its first, second, ….

    `attributes` are given in addition to the node's own. Joints, views and quantised weights are not taken over.
    """
    present = [p if op.has(p) else None for p in inputs]
    while present and present[-1] is None:
        present.pop()
    node = onnx.NodeProto(op_type=op_type, name=op.node.name)
    node.input.extend("" if p is None else op.node.input[p] for p in present)
    node.output.extend(op.node.output)
    node.attribute.extend(a for a in op.node.attribute if a.name not in attributes and a.name not in _OWN)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())
    rule = declare(Op(op.graph, op.index, node))
    places = dict(enumerate(inputs))
    return Rule(
        labels=lambda flow: _as(flow, node, rule.labels, places),
        zero=lambda zero: rule.zero(tuple(p is None or zero[p] for p in present)),
        poles=tuple(places[p] for p in rule.poles),
        parameters={places[p]: role for p, role in rule.parameters.items() if p in places},
        macs=rule.macs,
    )


def _as(flow: LabelFlow, node: onnx.NodeProto, labels: Callable[[LabelFlow], None], places: Mapping[int, int]) -> None:
    inner = LabelFlow(flow.book, flow.index)
    inner.node = node
    labels(inner)
    flow.sums |= inner.sums
    flow.taken.update(places[position] for position in inner.taken if position in places)
    flow.written |= inner.written
