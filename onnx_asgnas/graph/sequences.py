"""Sequences that only take a tensor apart: SplitToSequence with SequenceAt behind it, as exporters write a chunk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx
from onnx import helper

from onnx_asgnas.graph.nodes import is_standard, read_by

Parts = dict[int, list[str]]
"""The tensors that are taken out of a sequence, by their place in it; negative ones count from its end."""

_SPLIT_IS_INPUT = 13
"""The operator set from which on a Split has its lengths as an input."""


def parts_of_sequences(
    nodes: Sequence[onnx.NodeProto], outputs: Collection[str], places: Mapping[str, int]
) -> dict[str, Parts]:
    """By name, the sequences made by a SplitToSequence that only SequenceAt reads, each at a known place."""
    found: dict[str, Parts] = {
        node.output[0]: {} for node in nodes if node.op_type == "SplitToSequence" and is_standard(node)
    }
    if not found:
        return {}
    for name in outputs:
        found.pop(name, None)
    for node in nodes:
        at = node.input[1] if node.op_type == "SequenceAt" and is_standard(node) else ""
        if at in places and node.input[0] in found:
            found[node.input[0]].setdefault(places[at], []).append(node.output[0])
        else:
            for name in read_by(node):
                found.pop(name, None)
    return found


def as_split(
    node: onnx.NodeProto, parts: Parts, lengths: Sequence[int], split: str, version: int
) -> list[onnx.NodeProto]:
    """A Split into parts of these lengths that gives what was taken out of the sequence under the same names.

    `split` is the constant that holds the lengths; a place that is read twice gets an Identity.
    """
    names = [f"{node.output[0]}.{at}" for at in range(len(lengths))]
    copies = []
    for place, tensors in parts.items():
        at = place % len(lengths)
        fresh = names[at] == f"{node.output[0]}.{at}"
        if fresh:
            names[at] = tensors[0]
        copies += [helper.make_node("Identity", [names[at]], [t], name=t) for t in (tensors[1:] if fresh else tensors)]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if version >= _SPLIT_IS_INPUT:
        first = helper.make_node("Split", [node.input[0], split], names, name=node.name, axis=axis)
    else:
        first = helper.make_node("Split", [node.input[0]], names, name=node.name, axis=axis, split=list(lengths))
    return [first, *copies]


def lengths_of_parts(node: onnx.NodeProto, whole: int, split: Iterable[int] | int | None) -> list[int] | None:
    """The lengths of the parts of an axis of this length; None where the parts have another rank, or do not fit."""
    if split is None:
        keeps = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        return [1] * whole if keeps else None
    if not isinstance(split, int):
        lengths = list(split)
        return lengths if sum(lengths) == whole else None
    if split < 1:
        return None
    return [split] * (whole // split) + ([whole % split] if whole % split else [])
