"""The operator registry: one function per operator says all that the system knows about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.labelled import Ids
from onnx_asgnas.operators.labels import LabelFlow

ZeroRule = Callable[[tuple[bool, ...]], bool]
"""Is the output all zero, given which inputs are. An input that is not there counts as zero."""


class Op:
    """One node of a trace graph, as the function that declares its operator sees it."""

    def __init__(self, graph: TraceGraph, index: int, node: onnx.NodeProto | None = None) -> None:
        self.graph = graph
        self.index = index
        self.node = graph.nodes[index] if node is None else node

    @cached_property
    def _attributes(self) -> dict[str, onnx.AttributeProto]:
        return {a.name: a for a in self.node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, `default` where it is not given."""
        found = self._attributes.get(name)
        return default if found is None else onnx.helper.get_attribute_value(found)

    def has(self, position: int) -> bool:
        """Is there an input at this position."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def is_activation(self, position: int) -> bool:
        """Does the input at this position depend on a graph input."""
        return self.has(position) and self.node.input[position] in self.graph.activations

    def is_weight(self, position: int) -> bool:
        """Is the input at this position made of initializers alone."""
        return self.has(position) and not self.is_activation(position)

    def size(self, position: int) -> tuple[int, ...]:
        """The shape of an input with open dimensions bound (the batch to one); () where unknown."""
        return self.graph.size(self.node.input[position]) or ()

    def gives_more(self) -> bool:
        """Does something read another output than the first one."""
        return any(name in self.graph.consumers or self.graph.is_output(name) for name in self.node.output[1:] if name)

    def output_size(self, position: int = 0) -> tuple[int, ...]:
        """The shape of an output with open dimensions bound (the batch to one); () where unknown."""
        return self.graph.size(self.node.output[position]) or ()

    def constant(self, position: int) -> np.ndarray | None:
        """The value of an input that is a known integer or boolean constant."""
        return self.graph.constant(self.node.input[position]) if self.has(position) else None

    def version(self) -> int:
        """The version of the operator set that this node belongs to."""
        return self.graph.opsets.get("" if self.node.domain == "ai.onnx" else self.node.domain, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """An operator that joins operands of which one that is zero may be dropped. `axis` is where a Concat joins."""

    operands: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """How an input stands for numbers: (q - zero point) · scale.

    `scale` and `zero_point` are input positions, None where there is none. Where they are vectors they lie along
    `axis`; where they have as many axes as the input, one entry holds for `block` places on it.
    """

    scale: int | None = None
    zero_point: int | None = None
    axis: int = 0
    block: int = 0


def never(zero: tuple[bool, ...]) -> bool:
    """The output is not known to be zero whatever the inputs are."""
    return False


def first(zero: tuple[bool, ...]) -> bool:
    """The output is zero where the first input is."""
    return zero[0]


@dataclass(kw_only=True, slots=True)  # to freeze it would take as long again: one is made for every node
class Rule:
    """What is known of one node; not to be changed.

    `zero` says when its outputs are all zero, `poles` the inputs that must not be zero for the outputs to be finite,
    `parameters` which inputs train and in what role, `labels` how channel labels flow through it, `joint` whether a
    zero operand may be dropped, `macs` its multiply-accumulates for one example, `shape_only` that the output depends
    on the shape of the input and not on its values, `view` how the labels of a weight pass through it, where it works
    on initializers alone, `quantised` which inputs are weights in whole numbers.
    """

    labels: Callable[[LabelFlow], None]
    zero: ZeroRule = never
    poles: tuple[int, ...] = ()
    parameters: Mapping[int, str] = field(default_factory=dict)
    joint: Joint | None = None
    macs: int = 0
    shape_only: bool = False
    view: Callable[[LabelFlow], Sequence[Ids] | None] | None = None
    quantised: Mapping[int, Quantised] = field(default_factory=dict)


Declaration = Callable[[Op], Rule]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the registry."""

    domain: str
    op_type: str
    since_version: int
    declare: Declaration


_ENTRIES: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
_NEWEST: dict[tuple[str, str, int], Entry | None] = {}
"""The entry that counts for an operator at a version, once it was looked for."""


def register(*op_types: str, since_version: int = 1, domain: str = "") -> Callable[[Declaration], Declaration]:
    """Declare operators; the newest entry that is not newer than the model's operator set counts."""

    def add(declare: Declaration) -> Declaration:
        for op_type in op_types:
            entries = _ENTRIES[domain, op_type]
            entries.append(Entry(domain, op_type, since_version, declare))
            entries.sort(key=lambda entry: entry.since_version)
        _NEWEST.clear()
        return declare

    return add


def entries() -> list[Entry]:
    """All entries, by domain, operator and version."""
    return [entry for key in sorted(_ENTRIES) for entry in _ENTRIES[key]]


def rule_of(graph: TraceGraph, index: int) -> Rule | None:
    """What is known of a node; None for an operator that nobody registered."""
    op = Op(graph, index)
    key = ("" if op.node.domain == "ai.onnx" else op.node.domain, op.node.op_type, op.version())
    if key not in _NEWEST:
        fitting = [e for e in _ENTRIES.get(key[:2], ()) if e.since_version <= key[2]]
        _NEWEST[key] = fitting[-1] if fitting else None
    entry = _NEWEST[key]
    return None if entry is None else entry.declare(op)


def rules_of(graph: TraceGraph) -> list[Rule | None]:
    """What is known of every node, in the graph's order."""
    return [rule_of(graph, index) for index in range(len(graph.nodes))]
