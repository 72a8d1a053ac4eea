"""Channel labels in a graph: numbers for all that may leave, and what an operator may do with them.

Operators act on label arrays as they act on data; where two labels meet they are tied and leave together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.labelled import Bits, Ids, Kind, Labelled, LabelledAxis, equal_bits, no_channels
from onnx_asgnas.operators.slots import Counts, SizeSlot, piece_of

_COUNTING = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING})
"""Types of tensors that index and count: they carry no channels, but for the int32 bias of a quantised layer."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Labels that must stay, the node that wants it, and why."""

    labels: Ids
    node: int
    reason: str


class KnownRule(Protocol):
    """What the labels ask of the rule of an operator on parameters: how a weight's labels pass through it."""

    @property
    def view(self) -> Callable[[LabelFlow], Sequence[Ids] | None] | None:
        """Gives the labels of what the operator makes of a weight."""


class LabelBook:
    """All labels of a graph, the ties between them, what is frozen, and which constants follow.

    `ignored` are axes known to stay as a whole: they carry no labels, and so are in nobody's way. `conflict` says that
    labels that stay may have been in the way of others.
    """

    def __init__(
        self,
        graph: TraceGraph,
        rules: Sequence[KnownRule | None],
        ignored: frozenset[tuple[str, int]] = frozenset(),
        *,
        sources: bool = True,
    ) -> None:
        self.graph, self.rules, self.ignored, self.with_sources = graph, rules, ignored, sources
        self.count = 0
        self.conflict = False
        self.axes: dict[tuple[str, int], LabelledAxis] = {}
        self.tensors: dict[str, Labelled] = {}
        self.ties: list[tuple[Ids, Ids]] = []
        self.axis_ties: list[tuple[LabelledAxis, LabelledAxis]] = []
        self.freezes: list[Freeze] = []
        self.sizes: list[SizeSlot] = []
        self.lengths: dict[str, list[Ids | None]] = {}
        self.work: dict[int, tuple[Ids, ...]] = {}
        self.claims: set[tuple[int, str, int]] = set()
        self._views: dict[str, tuple[Ids, ...] | None] = {}
        self.alike: list[tuple[Ids, Ids]] = []  # axes of weights that a Concat lays side by side: seen as the first
        self._order: list[LabelledAxis] = []
        self._starts: list[int] = []
        self.whole: dict[int, LabelledAxis] = {}
        """The axis of each array that is the labels of one, by the array's identity."""

    def axis(self, owner: str, axis: int, length: int, kind: Kind) -> Ids:
        """The labels of one axis, made at its first use; none on an axis of one index, which has to stay."""
        if (owner, axis) in self.ignored or (length < 2 and kind is not Kind.SOURCE):
            return np.full(length, -1, np.int64)
        found = self.axes.get((owner, axis))
        if found is None:
            labels = np.arange(self.count, self.count + length, dtype=np.int64)
            found = self.axes[owner, axis] = LabelledAxis(owner, axis, kind, self.count, length, labels)
            self.whole[id(labels)] = found
            self._order.append(found)
            self._starts.append(self.count)
            self.count += length
        elif found.kind is not kind:
            found.kind |= kind
        return found.labels

    @property
    def notes(self) -> int:
        """How many ties and freezes there are."""
        return len(self.ties) + len(self.axis_ties) + len(self.freezes)

    def mark(self, labels: Ids, kind: Kind) -> None:
        """Note what happens to slices that an operator reads through a view of their initializer, or of several."""
        waiting, rest = [labels], self.alike
        while waiting:
            now = waiting.pop()
            self._mark(now, kind)
            met = [bool(np.isin(first[first >= 0], now).any()) for first, _ in rest]
            waiting += [other for (_, other), hit in zip(rest, met, strict=True) if hit]
            rest = [pair for pair, hit in zip(rest, met, strict=True) if not hit]

    def _mark(self, labels: Ids, kind: Kind) -> None:
        axis = self.whole.get(id(labels))
        if axis is not None:
            axis.kind |= kind
            return
        kept, at = np.unique(labels[labels >= 0]), 0
        while at < len(kept):
            found = self._order[bisect_right(self._starts, int(kept[at])) - 1]
            found.kind |= kind
            at = int(np.searchsorted(kept, found.start + found.length))

    def freeze(self, labels: Ids, node: int, reason: str) -> None:
        """Keep these labels."""
        if id(labels) in self.whole:
            self.freezes.append(Freeze(labels, node, reason))
            return
        flat = labels.reshape(-1)
        kept = np.unique(flat[flat >= 0])
        if kept.size:
            self.freezes.append(Freeze(kept, node, reason))

    def view(self, name: str) -> tuple[Ids, ...] | None:
        """The labels of a tensor made of initializers, an array for each labelled axis of what it is made of.

        None where it is computed by something that labels do not pass.
        """
        if name not in self._views:
            self._views[name] = self._view(name)
        return self._views[name]

    def _view(self, name: str) -> tuple[Ids, ...] | None:
        tensor = self.graph.initializers.get(name)
        if tensor is not None and tensor.data_type in _COUNTING - {onnx.TensorProto.INT32}:
            return None
        if tensor is not None:
            shapes = np.where(np.eye(len(tensor.dims), dtype=bool), tensor.dims, 1)
            found = [self.axis(name, axis, n, Kind(0)).reshape(shapes[axis]) for axis, n in enumerate(tensor.dims)]
            return tuple(ids for ids in found if ids.size > 1)
        node = self.graph.producer.get(name)
        rule = None if node is None else self.rules[node]
        if node is None or rule is None or rule.view is None or name in self.graph.activations:
            return None
        found_view = rule.view(LabelFlow(self, node))
        return None if found_view is None else tuple(found_view)

    def freeze_what_others_read(self) -> None:
        """Keep the labels of initializers that an operator reads without knowing of them, or that the model gives."""
        labelled = [(owner, axis, found.labels) for (owner, axis), found in self.axes.items()]
        for name, factors in self._views.items():
            if name not in self.graph.initializers:
                labelled += [(name, _axis_of(ids), ids) for ids in factors or ()]
        for name, axis, labels in labelled:
            for node in dict.fromkeys(self.graph.consumers.get(name, ())):
                if name not in self.graph.activations and (node, name, axis) not in self.claims:
                    self.freeze(labels, node, f"{self.graph.nodes[node].op_type} reads '{name}' as it is")
            if self.graph.is_output(name) and name not in self.graph.activations:
                self.freeze(labels, -1, f"graph output {name}")


def _axis_of(ids: Ids) -> int:
    """The axis along which labels vary; -1 where there are several."""
    long = [axis for axis, count in enumerate(ids.shape) if count > 1]
    return long[0] if len(long) == 1 else -1


class LabelFlow:
    """The labels around one node: read those of its inputs, tie, freeze, and write those of its outputs."""

    def __init__(self, book: LabelBook, index: int) -> None:
        self.book = book
        self.index = index
        self.node = book.graph.nodes[index]
        self.sums = False
        self.taken: set[int] = set()
        """The inputs whose labels the rule has looked at."""
        self.written: set[int] = set()
        """The outputs that the rule has given labels."""

    def size(self, position: int) -> tuple[int, ...] | None:
        """The shape of an input with its open dimensions bound, none of them to one; None where unknown."""
        return self.book.graph.sizes(self.node.input[position])[1]

    def is_open(self, position: int, axis: int) -> bool:
        """Is the length of this axis of an input not the same for every input of the model."""
        shape = self.book.graph.shape(self.node.input[position])
        return shape is None or shape[axis] is None

    def rank(self, position: int) -> int | None:
        """The number of axes of an input; None where unknown."""
        size = self.size(position)
        return None if size is None else len(size)

    def read(self, position: int) -> Labelled:
        """The labels of an activation; of anything else none."""
        self.taken.add(position)
        found = self.book.tensors.get(self.node.input[position])
        return found if found is not None else Labelled.none(self.rank(position) or 0)

    def channels(self, position: int, axis: int) -> Labelled:
        """The labels of an input along one axis as a vector; what varies along another axis is frozen."""
        found = self.read(position)
        size = self.size(position)
        length = size[axis] if size else 1
        if found.vector is not None and len(found.vector) == length and found.ids.shape[axis] == length:
            return Labelled(found.vector, found.zero.reshape(-1), found.vector)
        if not found.any and found.ids.ndim:
            return no_channels(length)
        if not found.ids.ndim:
            return Labelled.of(np.full(length, -1, np.int64), False)
        axis %= found.ids.ndim
        if any(other != axis for other in found.long):
            self.freeze(found.ids, f"{self.node.op_type} mixes along an axis that carries channels")
            return Labelled.of(np.full(length, -1, np.int64), False)
        length = length if size else found.ids.shape[axis]
        if found.ids.shape[axis] not in (1, length):
            self.freeze(found.ids, f"{self.node.op_type} of an axis of open length")
            return Labelled.of(np.full(length, -1, np.int64), False)
        if found.ids.size == length:
            return found.map(lambda array: array.reshape(-1))
        return found.map(lambda array: np.broadcast_to(array.reshape(-1), (length,)))

    def is_weight(self, position: int) -> bool:
        """Is this input made of initializers alone."""
        return self.node.input[position] not in self.book.graph.activations

    def weight_axis(self, position: int, axis: int, kind: Kind) -> Ids:
        """The labels of one axis of a weight, which this node knows how to cut; none where it is computed otherwise."""
        name = self.node.input[position]
        tensor = self.book.graph.initializers.get(name)
        if tensor is not None:
            dims = tensor.dims
            axis %= len(dims) or 1
            length = dims[axis] if dims else 1
            if tensor.data_type in _COUNTING:
                return np.full(length, -1, np.int64)
            self.book.claims.add((self.index, name, axis))
            return self.book.axis(name, axis, length, kind)
        size = self.size(position)
        length = size[axis] if size else 1
        factors = self.book.view(name) if self.is_weight(position) and size else None
        if not size or factors is None:
            return np.full(length, -1, np.int64)
        axis %= len(size)
        for ids in factors:
            if ids.shape[axis] > 1 and _axis_of(ids) == axis:
                self.book.claims.add((self.index, name, axis))
                self.book.mark(ids, kind)
                return ids.reshape(-1)
        return np.full(length, -1, np.int64)

    def own_axis(self, position: int, axis: int, length: int, kind: Kind) -> Ids:
        """The labels of one axis of the tensor at this position, which this node knows how to cut."""
        name = self.node.input[position]
        self.book.claims.add((self.index, name, axis))
        return self.book.axis(name, axis, length, kind)

    def factors(self, position: int) -> tuple[Ids, ...] | None:
        """The labels of a weight that this node makes another view of; None where it is no such view."""
        name = self.node.input[position]
        found = self.book.view(name)
        for ids in found or ():
            self.book.claims.add((self.index, name, _axis_of(ids)))
        return found

    def tie(self, first: Ids, second: Ids, reason: str) -> None:
        """Labels at the same place leave together; one that meets no label stays."""
        if first is second:
            return
        whole = self.book.whole
        one_axis, other_axis = whole.get(id(first)), whole.get(id(second))
        if one_axis is not None and other_axis is not None and one_axis.length == other_axis.length:
            self.book.axis_ties.append((one_axis, other_axis))
            return
        try:
            if first.shape != second.shape:
                first, second = np.broadcast_arrays(first, second)
        except ValueError:  # lengths that are equal for one input only
            self.freeze(np.concatenate([first.reshape(-1), second.reshape(-1)]), reason)
            return
        one, two = first >= 0, second >= 0
        both = one & two
        if both.all():
            self.book.ties.append((first.reshape(-1), second.reshape(-1)))
            return
        if both.any():
            self.book.ties.append((first[both], second[both]))
        self.freeze(np.concatenate([first[~both & one], second[~both & two]]), reason)

    def contract(self, channels: Labelled, columns: Ids) -> None:
        """A weight's columns read channels: they leave with them, if what they read is then exactly zero."""
        self.tie(channels.ids, columns, "reads channels that cannot leave")
        self.needs_zero(channels)

    def needs_zero(self, channels: Labelled) -> None:
        """Sums over these channels: those whose value is not zero when their variables are have to stay."""
        self.sums = True
        if channels.zero.all():
            return
        left = channels.ids[(channels.ids >= 0) & ~channels.zero]
        self.freeze(left, f"{self.node.op_type} reads a value that is not zero when the channel's variables are")

    def mix(self, found: Labelled, axes: Iterable[int], reason: str) -> Labelled:
        """What lies along these axes counts together: it leaves as a whole, or stays where nothing else varies.

        Gives the labels that are left, size 1 on these axes.
        """
        axes = tuple(axes)
        mixed = [axis for axis in found.long if axis in axes]
        if not mixed:
            return found
        if len(mixed) == len(found.long):
            self.freeze(found.ids, reason)
            return Labelled.none(found.ids.ndim)
        slab = found.slab(mixed)
        self.tie(slab.ids, found.ids, reason)
        return slab

    def freeze(self, labels: Ids, reason: str) -> None:
        """Keep these labels."""
        self.book.freeze(labels, self.index, reason)

    def freeze_inputs(self, reason: str) -> None:
        """Keep the labels of all activations that this node reads."""
        self.taken.update(range(len(self.node.input)))
        for name in self.book.graph.reads[self.index]:
            found = self.book.tensors.get(name)
            if found is not None:
                self.freeze(found.ids, reason)
            for entry in self.book.lengths.get(name, ()):
                if entry is not None:
                    self.freeze(entry, reason)

    def count_macs(self, *labels: Ids) -> None:
        """This node's multiply-accumulates shrink with each of these sets of labels."""
        self.book.work[self.index] = tuple(ids.reshape(-1) for ids in labels if (ids >= 0).any())

    def size_slot(
        self, position: int, at: int | None, labels: Ids, counts: Counts = Counts.LENGTH, node: int | None = None
    ) -> bool:
        """Entry `at` of a constant input says something of an axis with these labels; False where it is computed.

        An input that a Concat puts together may have its entry in a constant piece, and that may be multiplied: then
        the labels repeat as often. `node` is this one by default.
        """
        node = self.index if node is None else node
        if not len(labels):
            return True
        found = self._constant_of(node, position, at)
        if found is None:
            return False
        name, entry, times = found
        if times:
            value = self.book.graph.constant(name)
            count = 0 if value is None else int(value.reshape(-1)[entry or 0])
            if counts is not Counts.LENGTH or count < 1 or len(labels) % count:
                return False
            table = labels.reshape(len(labels) // count, count, -1)
            if not (table == table[:1]).all():
                return False
            labels = table[0]
        self.book.sizes.append(SizeSlot(node, labels, input=position, position=at, counts=counts))
        return True

    def entry(self, position: int, at: int) -> int | None:
        """Entry `at` of an input that is a constant, or put together of pieces of which that one is constant."""
        found = self._constant_of(self.index, position, at)
        if found is None or found[1] is None:
            return None
        values = self.book.graph.constant(found[0])
        value = None if values is None else int(values.reshape(-1)[found[1]])
        return None if value is not None and found[2] and value < 2 else value

    def _constant_of(self, node: int, position: int, at: int | None) -> tuple[str, int | None, bool] | None:
        """The initializer that holds an entry of an input, its place there, and whether it is multiplied."""
        graph, times = self.book.graph, False
        name = graph.nodes[node].input[position]
        while name not in graph.initializers:
            piece = None if at is None else piece_of(graph, name, at)
            if piece is None:
                return None
            name, at, times = graph.nodes[piece.node].input[piece.position], piece.entry, times or piece.times
        return name, at, times

    def mean_over(self, labels: Ids) -> None:
        """The output is a mean over an axis with these labels, of which those that leave are zero."""
        self.book.sizes.append(SizeSlot(self.index, labels, counts=Counts.MEAN))

    def size_attribute(self, name: str, labels: Ids, at: int | None = None, counts: Counts = Counts.LENGTH) -> None:
        """An attribute of this node, or entry `at` of a list, is the length of an axis with these labels."""
        if len(labels):
            self.book.sizes.append(SizeSlot(self.index, labels, position=at, attribute=name, counts=counts))

    def write(self, labelled: Labelled, output: int = 0) -> None:
        """Give an output its labels; the only channel of a tensor stays."""
        if output >= len(self.node.output) or not self.node.output[output] or not labelled.any:
            return
        self.written.add(output)
        if labelled.long:
            self.book.tensors[self.node.output[output]] = labelled
        else:
            self.freeze(labelled.ids, "the only channel of its tensor")

    def write_channels(self, ids: Ids, zero: Bits | bool, rank: int, axis: int) -> None:
        """Give the first output labels along one axis."""
        shape = (1,) * axis + (len(ids),) + (1,) * (rank - axis - 1)
        bits = equal_bits(shape, zero) if isinstance(zero, bool) else np.broadcast_to(zero, ids.shape).reshape(shape)
        self.write(Labelled(ids.reshape(shape), bits, ids if id(ids) in self.book.whole else None))
