"""Constants that say something of an axis that got shorter: lengths, places, indices, equal parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.labels import Counts, Ids, SizeSlot

Values = dict[str, NDArray[np.generic]]


def leaving(labels: Ids, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which indices of an axis leave, given labels [length, rest] and which labels do."""
    table = labels.reshape(len(labels), -1)
    return ((table >= 0) & np.append(gone, False)[table]).all(axis=1)


@dataclass(slots=True)
class SizeSurgery:
    """Brings the constants of a graph up to date; a constant that others read too is copied before it changes."""

    graph: TraceGraph
    nodes: dict[str, gs.Node]
    gone: NDArray[np.bool_]
    values: Values = field(default_factory=dict)

    def perform(self, slots: Iterable[SizeSlot]) -> Values:
        """Change the inputs and attributes of the nodes that are left; gives the new constants by name."""
        for slot in slots:
            node = self.nodes.get(self.graph.nodes[slot.node].name)
            lost = leaving(slot.labels, self.gone)
            if node is None or not lost.any():
                continue
            if slot.counts is Counts.EQUAL_PARTS:
                self._explicit_parts(node, slot, lost)
            elif slot.attribute:
                self._attribute(node, slot, lost)
            else:
                self._input(node, slot, lost)
        return self.values

    def _attribute(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        by = int(lost.sum()) * (-1 if slot.counts is Counts.FROM_END else 1)
        if slot.position is None:
            node.attrs[slot.attribute] -= by
        else:
            numbers = list(node.attrs[slot.attribute])
            numbers[slot.position] -= by
            node.attrs[slot.attribute] = numbers

    def _input(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        name, values = self._own_constant(node, slot)
        if slot.counts is Counts.INDICES:
            values = _remapped(values, lost)
        elif slot.counts is Counts.BROADCAST:
            values.reshape(-1)[slot.position or 0] = 1
        else:
            values.reshape(-1)[slot.position or 0] -= int(lost.sum()) * (-1 if slot.counts is Counts.FROM_END else 1)
        self._put(node, slot.input, name, values)

    def _own_constant(self, node: gs.Node, slot: SizeSlot) -> tuple[str, NDArray[Any]]:
        """The name of the constant that this node alone reads here, and its present values."""
        name = f"{node.name}.input{slot.input}"
        if name in self.values:
            return name, np.array(self.values[name])
        original = self.graph.nodes[slot.node].input[slot.input]
        taken = self.graph.initializers.keys() | self.graph.producer.keys()
        while name in taken and name != original:
            name += "_"
        return name, np.array(self.values.get(name, self.graph.array(original)))

    def _put(self, node: gs.Node, position: int, name: str, values: NDArray[Any]) -> None:
        self.values[name] = values
        node.inputs[position] = gs.Constant(name, values)

    def _explicit_parts(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        """Give a Split into equal parts the parts that are left, as an input or (before operator set 13) attribute."""
        whole = -(-len(lost) // node.attrs.get("num_outputs", len(node.outputs)))
        parts = [int((~lost[start : start + whole]).sum()) for start in range(0, len(lost), whole)]
        node.attrs.pop("num_outputs", None)
        if self.graph.opsets.get("", 1) < 13:
            node.attrs["split"] = parts
            return
        name = f"{node.name}.split"
        while name in self.graph.initializers or name in self.graph.producer:
            name += "_"
        node.inputs.append(gs.Constant(name, np.array(parts, np.int64)))
        self.values[name] = np.array(parts, np.int64)


def _remapped(indices: NDArray[Any], lost: NDArray[np.bool_]) -> NDArray[Any]:
    """Indices on an axis from which some have left; those that name one of these leave too."""
    places = np.where(indices < 0, indices + len(lost), indices)
    kept = ~lost[places]
    moved = (places - np.cumsum(lost)[places]).astype(indices.dtype)
    return moved if kept.all() else moved[kept]
