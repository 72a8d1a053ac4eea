"""Channel labels: numbers for all that may leave, and how they flow through one operator.

Every (initializer, axis, index) that may leave is a number. A tensor's labels are an integer array that broadcasts to
its shape: size 1 on axes that carry none, -1 for none. Operators act on label arrays as they act on data; where two
labels meet they are tied and leave together. Beside each label moves one bit: is the channel exactly zero once the
zeroed variables of its group are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.graph import TraceGraph

Ids = NDArray[np.int64]


class Kind(Flag):
    """What happens to the slices of an axis when their label leaves.

    PRODUCED rows and biases make the channel, AFFINE ones are a scale and bias behind it: both are zeroed in training
    and removed afterwards. CUT ones (reader columns, statistics) are only removed. A SOURCE label has no initializer:
    it stands for a channel that only a removed structure can take along.
    """

    PRODUCED = auto()
    AFFINE = auto()
    CUT = auto()
    SOURCE = auto()


@dataclass(slots=True)
class LabelledAxis:
    """The labels start, start + 1, … of one axis of an initializer (of a tensor, for a SOURCE)."""

    owner: str
    axis: int
    kind: Kind
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labels of an activation, and beside each whether its channel is exactly zero once its group is."""

    ids: Ids
    zero: NDArray[np.bool_]

    @classmethod
    def none(cls, rank: int) -> Labelled:
        """No labels on a tensor of that rank."""
        return cls(np.full((1,) * rank, -1, np.int64), np.zeros((1,) * rank, bool))

    @property
    def any(self) -> bool:
        """Is there a label at all."""
        return bool((self.ids >= 0).any())


@dataclass(frozen=True, slots=True)
class Freeze:
    """Labels that must stay, the node that wants it, and why."""

    labels: Ids
    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class SizeSlot:
    """A number that is the length of a labelled axis: an entry of a constant input of a node, or an attribute of it."""

    node: int
    labels: Ids
    input: int = -1
    position: int = 0
    attribute: str = ""


class LabelBook:
    """All labels of a graph, the ties between them, and what is frozen."""

    def __init__(self, graph: TraceGraph) -> None:
        self.graph = graph
        self.count = 0
        self.axes: dict[tuple[str, int], LabelledAxis] = {}
        self.tensors: dict[str, Labelled] = {}
        self.ties: list[tuple[Ids, Ids]] = []
        self.freezes: list[Freeze] = []
        self.sizes: list[SizeSlot] = []
        self.claims: set[tuple[int, str, int]] = set()

    def axis(self, owner: str, axis: int, length: int, kind: Kind) -> Ids:
        """The labels of one axis, made at its first use."""
        found = self.axes.get((owner, axis))
        if found is None:
            found = self.axes[owner, axis] = LabelledAxis(owner, axis, kind, self.count, length)
            self.count += length
        found.kind |= kind
        return np.arange(found.start, found.start + length, dtype=np.int64)

    def freeze(self, labels: Ids, node: int, reason: str) -> None:
        """Keep these labels."""
        kept = np.unique(labels[labels >= 0])
        if kept.size:
            self.freezes.append(Freeze(kept, node, reason))

    def freeze_what_others_read(self) -> None:
        """Keep the labels of initializers that an operator reads without knowing of them, or that the model gives."""
        for (owner, axis), found in self.axes.items():
            if owner not in self.graph.initializers:
                continue
            labels = np.arange(found.start, found.start + found.length, dtype=np.int64)
            for node in dict.fromkeys(self.graph.consumers.get(owner, ())):
                if (node, owner, axis) not in self.claims:
                    self.freeze(labels, node, f"{self.graph.nodes[node].op_type} reads '{owner}' as it is")
            if self.graph.is_output(owner):
                self.freeze(labels, -1, f"graph output {owner}")


class LabelFlow:
    """The labels around one node: read those of its inputs, tie, freeze, and write those of its outputs."""

    def __init__(self, book: LabelBook, index: int) -> None:
        self.book = book
        self.index = index
        self.node = book.graph.nodes[index]

    def rank(self, position: int) -> int | None:
        """The number of axes of an input; None where unknown."""
        shape = self.book.graph.shape(self.node.input[position])
        return None if shape is None else len(shape)

    def read(self, position: int) -> Labelled:
        """The labels of an activation; of anything else none."""
        found = self.book.tensors.get(self.node.input[position])
        return found if found is not None else Labelled.none(self.rank(position) or 0)

    def channels(self, position: int, axis: int) -> Labelled:
        """The labels of an input along one axis as a vector; labels on another axis freeze."""
        found = self.read(position)
        length = self._length(position, axis)
        axis %= max(found.ids.ndim, 1)
        if self.book.graph.size(self.node.input[position]) is None and found.ids.ndim:
            length = found.ids.shape[axis]
        if found.ids.ndim == 0 or any(n > 1 for a, n in enumerate(found.ids.shape) if a != axis):
            self.freeze(found.ids, f"{self.node.op_type} mixes along an axis that carries channels")
            return Labelled(np.full(length, -1, np.int64), np.zeros(length, bool))
        return Labelled(
            np.broadcast_to(found.ids.reshape(-1), (length,)), np.broadcast_to(found.zero.reshape(-1), (length,))
        )

    def _length(self, position: int, axis: int) -> int:
        size = self.book.graph.size(self.node.input[position])
        return size[axis] if size else 1

    def weight_axis(self, position: int, axis: int, kind: Kind) -> Ids:
        """The labels of an initializer's axis; none where the input is computed from initializers."""
        name = self.node.input[position]
        length = self._length(position, axis)
        tensor = self.book.graph.initializers.get(name)
        if tensor is None:
            return np.full(length, -1, np.int64)
        return self.own_axis(position, axis % len(tensor.dims), length, kind)

    def own_axis(self, position: int, axis: int, length: int, kind: Kind) -> Ids:
        """The labels of one axis of the tensor at this position, which this node knows how to cut."""
        name = self.node.input[position]
        self.book.claims.add((self.index, name, axis))
        return self.book.axis(name, axis, length, kind)

    def tie(self, first: Ids, second: Ids, reason: str) -> None:
        """Labels at the same place leave together; one that meets no label stays."""
        first, second = np.broadcast_arrays(first, second)
        both = (first >= 0) & (second >= 0)
        if both.any():
            self.book.ties.append((first[both], second[both]))
        self.freeze(np.concatenate([first[~both & (first >= 0)], second[~both & (second >= 0)]]), reason)

    def contract(self, channels: Labelled, columns: Ids) -> None:
        """A weight's columns read channels: they leave with them, if what they read is then exactly zero."""
        self.tie(channels.ids, columns, "reads channels that cannot leave")
        left = channels.ids[(channels.ids >= 0) & ~channels.zero]
        self.freeze(left, f"{self.node.op_type} reads a value that is not zero when the channel's variables are")

    def freeze(self, labels: Ids, reason: str) -> None:
        """Keep these labels."""
        self.book.freeze(labels.reshape(-1), self.index, reason)

    def freeze_inputs(self, reason: str) -> None:
        """Keep the labels of all activations that this node reads."""
        for name in self.book.graph.reads[self.index]:
            found = self.book.tensors.get(name)
            if found is not None:
                self.freeze(found.ids, reason)

    def size_slot(self, position: int, at: int, labels: Ids) -> None:
        """Entry `at` of a constant input is the length of an axis with these labels."""
        self.book.sizes.append(SizeSlot(self.index, labels, input=position, position=at))

    def size_attribute(self, name: str, labels: Ids) -> None:
        """An attribute of this node is the length of an axis with these labels."""
        self.book.sizes.append(SizeSlot(self.index, labels, attribute=name))

    def write(self, labelled: Labelled, output: int = 0) -> None:
        """Give an output its labels."""
        name = self.node.output[output]
        if name and labelled.any:
            self.book.tensors[name] = labelled

    def write_channels(self, ids: Ids, zero: NDArray[np.bool_] | bool, rank: int, axis: int) -> None:
        """Give the first output labels along one axis."""
        shape = [1] * rank
        shape[axis] = len(ids)
        bits = np.broadcast_to(np.asarray(zero), ids.shape)
        self.write(Labelled(ids.reshape(shape), bits.reshape(shape)))
