"""Folding of shape arithmetic: what is the same at every binding of the open dimensions becomes a number.

Where a target varies, it is still written with as many numbers as possible, so that those can shrink with a channel: a
Reshape with 0 for a length that stays in its place and -1 for one other, an Expand with 1 for a length that the input
has already, and any other as a Concat of constants and computed lengths.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_asgnas.graph.nodes import is_standard, read_by, replace
from onnx_asgnas.graph.sequences import Parts, as_split, lengths_of_parts, parts_of_sequences
from onnx_asgnas.graph.shapes import ShapeInference

Lengths = NDArray[np.int64]
Varying = NDArray[np.bool_]

_TO_THE_END = np.iinfo(np.int64).max


def fold(
    nodes: list[onnx.NodeProto],
    outputs: Collection[str],
    initializers: dict[str, onnx.TensorProto],
    shapes: ShapeInference,
) -> list[onnx.NodeProto]:
    """One pass in topological order: the nodes that stay, with the values of the others among the initializers.

    Nodes that stay may be changed in place: they get constant targets, and a Conv loses a bias of computed zeros.
    """
    folding = _Folding(initializers, shapes, {node.name for node in nodes}, frozenset(outputs))
    if any(node.op_type == "SplitToSequence" for node in nodes):
        folding.sequences = parts_of_sequences(nodes, outputs, folding.places())
    for node in nodes:
        folding.step(node)
    shapes.release()
    if folding.folded:
        used = {name for node in folding.kept for name in read_by(node)}
        for name in sorted(folding.folded & used):
            value = shapes.constant(name)
            if value is not None:
                initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
    return folding.kept


@dataclass(slots=True)
class _Folding:
    """The pass under way: the nodes that stay so far, and the tensors that became numbers."""

    initializers: dict[str, onnx.TensorProto]
    shapes: ShapeInference
    node_names: set[str]
    outputs: frozenset[str]
    kept: list[onnx.NodeProto] = field(default_factory=list)
    folded: set[str] = field(default_factory=set)
    concats: dict[str, onnx.NodeProto] = field(default_factory=dict)

    sequences: dict[str, Parts] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)

    def places(self) -> dict[str, int]:
        """The initializers that may be a place in a sequence."""
        kinds = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        scalars = [name for name, tensor in self.initializers.items() if not tensor.dims and tensor.data_type in kinds]
        values = ((name, self.shapes.constant(name)) for name in scalars)
        return {name: int(value) for name, value in values if value is not None}

    def step(self, node: onnx.NodeProto) -> None:
        """One node: it becomes numbers, or several nodes, or stays."""
        if node.op_type == "SplitToSequence" and node.output[0] in self.sequences:
            replacement = self._without_sequence(node)
            if replacement:
                self.apart.add(node.output[0])
                for each in replacement:
                    self.step(each)
                return
        elif node.op_type == "SequenceAt" and node.input[0] in self.apart:
            return
        if self.shapes.step(node):
            names = [name for name in node.output if name]
            if all([self.shapes.constant(name) is not None and name not in self.outputs for name in names]):
                self.folded.update(names)
                return
        self.keep(node)

    def _without_sequence(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A Split in the place of a SplitToSequence; [] where lengths are not known, or a place is not in it."""
        parts, shape = self.sequences[node.output[0]], self.shapes.shape(node.input[0])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        whole = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        given = len(node.input) > 1 and bool(node.input[1])
        value = self.shapes.constant(node.input[1]) if given else None
        if whole is None or (given and value is None):
            return []
        lengths = lengths_of_parts(node, whole, None if value is None else value.astype(np.int64).tolist())
        if not lengths or any(not -len(lengths) <= place < len(lengths) for place in parts):
            return []
        split = self._constant(f"{node.name}.split", np.array(lengths, np.int64))
        return as_split(node, parts, lengths, split, self.shapes.version)

    def keep(self, node: onnx.NodeProto) -> None:
        """Put a node behind those that stay, with what its sizes can be written as."""
        if is_standard(node):
            match node.op_type:
                case "Reshape" | "Expand" if len(node.input) == 2:
                    self._rewrite_target(node)
                case "Slice" if len(node.input) > 2:
                    self._rewrite_ends(node)
                case "Conv" | "ConvTranspose" if len(node.input) == 3 and node.input[2] in self.folded:
                    bias = self.shapes.constant(node.input[2])
                    if bias is not None and not bias.any():
                        node.input.pop()  # computed zeros are an exporter's way to say that there is no bias
                case "Concat":
                    self.concats[node.output[0]] = node
        self.kept.append(node)

    def _rewrite_target(self, node: onnx.NodeProto) -> None:
        name = node.input[1]
        if self.shapes.constant(name) is not None:
            return
        varying, first = self.shapes.varying(name), self.shapes.value(name)
        if varying is None or first is None or varying.ndim != 1:
            return
        lengths = np.where(varying, -1, first).astype(np.int64)
        constant_target = self._reshape_target if node.op_type == "Reshape" else self._expand_target
        target = constant_target(node, lengths, varying)
        if target is not None:
            node.input[1] = self._constant(f"{node.name}.shape", target)
            _drop_attribute(node, "allowzero")
        elif (lengths > 1).any():
            self._compose_target(node, lengths, varying)

    def _reshape_target(self, node: onnx.NodeProto, lengths: Lengths, varying: Varying) -> Lengths | None:
        """A constant with 0 for a length that stays in its place and -1 for one other; None where more than one do."""
        if any(a.name == "allowzero" and a.i for a in node.attribute) and not lengths.all():
            return None
        target: Lengths = lengths.copy()
        for axis in np.flatnonzero(varying):
            if self.shapes.copies(node.input[1], int(axis), node.input[0], int(axis)):
                target[axis] = 0
        return target if (target == -1).sum() <= 1 else None

    def _expand_target(self, node: onnx.NodeProto, lengths: Lengths, varying: Varying) -> Lengths | None:
        """A constant with 1 for a length that the input has already; None where another one varies."""
        shape = self.shapes.shape(node.input[0])
        if shape is None or len(shape) > len(lengths):
            return None
        target: Lengths = lengths.copy()
        offset = len(lengths) - len(shape)
        for axis in np.flatnonzero(varying):
            same = axis >= offset
            if not same or not self.shapes.copies(node.input[1], int(axis), node.input[0], int(axis) - offset):
                return None
            target[axis] = 1
        return target

    def _compose_target(self, node: onnx.NodeProto, lengths: Lengths, varying: Varying) -> None:
        """Write the target as a Concat of constants and computed lengths, if it is none already."""
        name = node.input[1]
        concat = self.concats.get(name)
        if concat is not None and all(self._is_plain(piece) for piece in concat.input):
            return
        cuts = np.flatnonzero(np.diff(varying)) + 1
        pieces = []
        for places in np.split(np.arange(len(lengths)), cuts):
            stem = f"{node.name}.shape.{places[0]}"
            if varying[places[0]]:
                indices = self._constant(f"{stem}.at", places)
                pieces.append(self._add("Gather", [name, indices], stem))
            else:
                pieces.append(self._constant(stem, lengths[places]))
        node.input[1] = self._add("Concat", pieces, f"{node.name}.shape")

    def _is_plain(self, name: str) -> bool:
        """Is it a constant, or does all of it vary."""
        varying = self.shapes.varying(name)
        return self.shapes.constant(name) is not None or (varying is not None and bool(varying.all()))

    def _rewrite_ends(self, node: onnx.NodeProto) -> None:
        """A Slice that goes to the end of an open axis says so by a constant."""
        name = node.input[2]
        varying, first = self.shapes.varying(name), self.shapes.value(name)
        if varying is None or first is None or self.shapes.constant(name) is not None:
            return
        has = [at < len(node.input) and bool(node.input[at]) for at in range(5)]
        axes = self.shapes.constant(node.input[3]) if has[3] else np.arange(first.size)
        steps = self.shapes.constant(node.input[4]) if has[4] else np.ones(first.size, np.int64)
        shape = self.shapes.shape(node.input[0])
        if axes is None or steps is None or shape is None or len(axes) != first.size:
            return
        if first.dtype != np.int64 or any(step < 1 for step in steps.tolist()):
            return
        ends = np.where(varying, _TO_THE_END, first).astype(np.int64)
        for place in np.flatnonzero(varying):
            axis = int(axes[place]) % max(len(shape), 1)
            if not self.shapes.copies(name, int(place), node.input[0], axis):
                return
        node.input[2] = self._constant(f"{node.name}.ends", ends)

    def _constant(self, stem: str, value: NDArray[np.int64]) -> str:
        """The name of a new constant."""
        name = self._unused(stem)
        value = value.astype(np.int64)
        self.initializers[name] = numpy_helper.from_array(value, name)
        self.shapes.add_constant(name, value)
        return name

    def _add(self, op_type: str, inputs: list[str], stem: str) -> str:
        """The output of a new node along axis 0."""
        output = self._unused(stem)
        label = output
        while label in self.node_names:
            label += "_"
        self.node_names.add(label)
        node = helper.make_node(op_type, inputs, [output], name=label, axis=0)
        self.shapes.step(node)
        self.keep(node)
        return output

    def _unused(self, stem: str) -> str:
        while self.shapes.knows(stem):
            stem += "_"
        return stem


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [a for a in node.attribute if a.name != name]
    if len(kept) < len(node.attribute):
        replace(node.attribute, kept)
