"""Constants that say something of an axis that got shorter: lengths, places, indices, equal parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.labelled import Ids
from onnx_asgnas.operators.slots import Counts, SizeSlot, piece_of

Values = dict[str, NDArray[np.generic]]


def leaving(labels: Ids, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which indices of an axis leave, given labels [length, rest] and which labels do."""
    table = labels.reshape(len(labels), -1)
    leaves: NDArray[np.bool_] = ((table >= 0) & np.append(gone, False)[table]).all(axis=1)
    return leaves


@dataclass(slots=True)
class SizeSurgery:
    """Brings the constants of a graph up to date; a constant that others read too is copied before it changes.

    So is what puts such a constant together, a Concat say: `before` are the copies, by the node before which they go.
    `behind` are nodes that go behind one: a mean over fewer channels is scaled to what it was over all.
    """

    graph: TraceGraph
    nodes: dict[str, gs.Node]
    gone: NDArray[np.bool_]
    values: Values = field(default_factory=dict)
    copies: dict[str, gs.Node] = field(default_factory=dict)
    before: dict[str, list[gs.Node]] = field(default_factory=dict)
    behind: dict[str, list[gs.Node]] = field(default_factory=dict)

    def perform(self, slots: Iterable[SizeSlot]) -> Values:
        """Change the inputs and attributes of the nodes that are left; gives the new constants by name."""
        for slot in slots:
            node = self.nodes.get(self.graph.nodes[slot.node].name)
            lost = leaving(slot.labels, self.gone)
            if node is None or not lost.any():
                continue
            if slot.counts is Counts.EQUAL_PARTS:
                self._explicit_parts(node, slot, lost)
            elif slot.counts is Counts.MEAN:
                self._scaled_mean(node, slot, lost)
            elif slot.attribute:
                self._attribute(node, slot, lost)
            else:
                self._input(node, slot, lost)
        return self.values

    def _attribute(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        if slot.position is None:
            node.attrs[slot.attribute] = _shorter(node.attrs[slot.attribute], lost, slot.counts)
        else:
            numbers = list(node.attrs[slot.attribute])
            numbers[slot.position] = _shorter(numbers[slot.position], lost, slot.counts)
            node.attrs[slot.attribute] = numbers

    def _input(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        name, entry = self.graph.nodes[slot.node].input[slot.input], slot.position
        reader, place = node, slot.input
        while name not in self.graph.initializers:
            piece = None if entry is None else piece_of(self.graph, name, entry)
            assert piece is not None  # or analysis would not have noted the slot
            reader, place = self._own_copy(reader, place), piece.position
            name, entry = self.graph.nodes[piece.node].input[piece.position], piece.entry
        own = f"{reader.name}.input{place}"
        if own not in self.values:
            own = self._free_name(own, name)
        values = np.array(self.values.get(own, self.graph.array(name)))
        if slot.counts is Counts.INDICES:
            values = _remapped(values, lost)
        elif slot.counts is Counts.BROADCAST:
            values.reshape(-1)[entry or 0] = 1
        else:
            values.reshape(-1)[entry or 0] = _shorter(int(values.reshape(-1)[entry or 0]), lost, slot.counts)
        self.values[own] = values
        reader.inputs[place] = gs.Constant(own, values)

    def _own_copy(self, reader: gs.Node, place: int) -> gs.Node:
        """The node that makes this input, as one that this reader alone reads."""
        own = f"{reader.name}.input{place}"
        if own not in self.copies:
            source = reader.inputs[place].inputs[0]
            result = gs.Variable(self._free_name(own, ""))
            self.copies[own] = gs.Node(
                source.op, self._free_node(own), dict(source.attrs), list(source.inputs), [result]
            )
            self.before.setdefault(self._reader_of(reader), []).insert(0, self.copies[own])
            reader.inputs[place] = result
        return self.copies[own]

    def _reader_of(self, node: gs.Node) -> str:
        """The node of the graph for which a copy is made."""
        return next((name for name, copies in self.before.items() if node in copies), node.name)

    def _free_node(self, name: str) -> str:
        while name in self.nodes:
            name += "_"
        return name

    def _free_name(self, name: str, own: str) -> str:
        while name != own and (name in self.graph.initializers or name in self.graph.producer):
            name += "_"
        return name

    def _scaled_mean(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        """Multiply a mean over the channels that are left, so that it is the one over all, zeros included."""
        (result,) = node.outputs
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.graph.dtype(result.name))
        name = self._free_name(f"{node.name}.share", "")
        self.values[name] = np.array((~lost).sum() / len(lost), dtype)
        mean = gs.Variable(self._free_name(f"{node.name}.mean", ""))
        node.outputs = [mean]
        scaled = gs.Node(
            "Mul", self._free_node(f"{node.name}.scaled"), {}, [mean, gs.Constant(name, self.values[name])], [result]
        )
        self.behind[node.name] = [scaled]

    def _explicit_parts(self, node: gs.Node, slot: SizeSlot, lost: NDArray[np.bool_]) -> None:
        """Give a Split into equal parts the parts that are left, as an input or (before operator set 13) attribute."""
        whole = -(-len(lost) // node.attrs.get("num_outputs", len(node.outputs)))
        parts = [int((~lost[start : start + whole]).sum()) for start in range(0, len(lost), whole)]
        node.attrs.pop("num_outputs", None)
        if self.graph.opsets.get("", 1) < 13:
            node.attrs["split"] = parts
            return
        name = self._free_name(f"{node.name}.split", "")
        node.inputs.append(gs.Constant(name, np.array(parts, np.int64)))
        self.values[name] = np.array(parts, np.int64)


def _shorter(value: int, lost: NDArray[np.bool_], counts: Counts) -> int:
    """A length without what leaves; of a place counted from the end nothing may be left, and then it is the end."""
    if counts is Counts.FROM_END:
        return value + int(lost.sum()) or 2**31 - 1
    return value - int(lost.sum())


def _remapped(indices: NDArray[Any], lost: NDArray[np.bool_]) -> NDArray[Any]:
    """Indices on an axis from which some have left; those that name one of these leave too."""
    places = np.where(indices < 0, indices + len(lost), indices)
    kept = ~lost[places]
    moved = (places - np.cumsum(lost)[places]).astype(indices.dtype)
    return moved if kept.all() else moved[kept]
