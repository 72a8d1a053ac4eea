"""Lengths of labelled axes in shape arithmetic: a Shape's entries, followed to where they are used as a length again.

As long as an entry is only picked out, put beside others and used as the length of an axis with the same labels, the
arithmetic of the compact model gives the compact length by itself. Any other use keeps the labels.
"""

from __future__ import annotations

import numpy as np

from onnx_asgnas.operators.labelled import Ids
from onnx_asgnas.operators.labels import LabelFlow

_SAME = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"})

_TARGETS = frozenset({("Reshape", 1), ("Expand", 1), ("Resize", 3)})
"""The inputs that are the shape of the output."""

Entries = list["Ids | None"]


def follow_lengths(flow: LabelFlow) -> None:
    """Take the entries that a node reads on to its output, or keep their labels."""
    lengths = flow.book.lengths
    read = [position for position, name in enumerate(flow.node.input) if name in lengths]
    if not read:
        return
    passed = _passed(flow, read)
    if passed is not None:
        if any(entry is not None for entry in passed):
            lengths[flow.node.output[0]] = passed
        return
    if len(read) == 1 and (flow.node.op_type, read[0]) in _TARGETS:
        _check_axes(flow, lengths[flow.node.input[read[0]]])
        return
    for position in read:
        _freeze(flow, lengths[flow.node.input[position]])


def _passed(flow: LabelFlow, read: list[int]) -> Entries | None:
    """The entries of the output, where the node only moves them; None for any other node."""
    graph, node = flow.book.graph, flow.node
    first = flow.book.lengths.get(node.input[0])
    if node.op_type == "Concat":
        found: Entries = []
        for position, name in enumerate(node.input):
            size = flow.size(position)
            if size is None or len(size) != 1:
                return None
            found += flow.book.lengths.get(name, [None] * size[0])
        return found
    if first is None or read != [0]:
        return None
    if node.op_type in _SAME:
        size = graph.size(node.output[0])
        return first if size is not None and len(size) <= 1 else None
    if node.op_type == "Gather":
        indices = graph.constant(node.input[1])
        return None if indices is None else [first[int(i)] for i in np.asarray(indices).reshape(-1)]
    if node.op_type == "Slice" and len(node.input) > 2:
        bounds = [graph.constant(name) for name in node.input[1:] if name]
        if any(b is None or np.size(b) != 1 for b in bounds):
            return None
        start, stop = (int(np.reshape(b, -1)[0]) for b in bounds[:2] if b is not None)
        step = bounds[3] if len(bounds) > 3 else None
        return first[start : stop : 1 if step is None else int(np.reshape(step, -1)[0])]
    return None


def _check_axes(flow: LabelFlow, entries: Entries) -> None:
    """The shape of the output: an entry is right as it is where the output's axis has the same labels."""
    found = flow.book.tensors.get(flow.node.output[0])
    for axis, entry in enumerate(entries):
        if entry is None:
            continue
        same = found is not None and axis in found.long and found.along(axis).shape == entry.shape
        if not same or found is None or not (found.along(axis) == entry).all():
            flow.freeze(entry, "the length of this axis is computed with")


def _freeze(flow: LabelFlow, entries: Entries) -> None:
    for entry in entries:
        if entry is not None:
            flow.freeze(entry, "the length of this axis is computed with")
