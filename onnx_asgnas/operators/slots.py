"""Numbers in a graph that say something of a labelled axis, and where in shape arithmetic they stand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.labelled import Ids


class Counts(Enum):
    """What a constant says of an axis: a length (or a place) on it, a length from its end, indices, or equal parts.

    BROADCAST is the length of an axis of equal values, which is one as soon as something leaves. MEAN is no constant:
    the output is a mean over the axis, to be taken over its full length although zeros have left.
    """

    LENGTH = auto()
    FROM_END = auto()
    INDICES = auto()
    EQUAL_PARTS = auto()
    BROADCAST = auto()
    MEAN = auto()


@dataclass(frozen=True, slots=True)
class SizeSlot:
    """What follows when labels leave: an entry of a constant input of a node, or of an attribute of it.

    `labels` are [length, rest]: an index of the axis leaves when all its labels do. `position` is the entry of a list.
    """

    node: int
    labels: Ids
    input: int = -1
    position: int | None = 0
    attribute: str = ""
    counts: Counts = Counts.LENGTH


@dataclass(frozen=True, slots=True)
class Piece:
    """Where an entry of a computed vector comes from: an input of the node that makes it, and the entry of that.

    With `times` it is multiplied by a number that is not constant: the length of a batch, say.
    """

    node: int
    position: int
    entry: int
    times: bool = False


def piece_of(graph: TraceGraph, name: str, entry: int) -> Piece | None:
    """Where an entry of a vector comes from that a Concat puts together, or that is one number times a constant."""
    maker = graph.producer.get(name, -1)
    node = graph.nodes[maker] if maker >= 0 else None
    if node is None:
        return None
    if node.op_type == "Concat":
        lengths = [(graph.size(piece) or (0,))[0] for piece in node.input]
        ends = np.cumsum(lengths)
        at = int(np.searchsorted(ends, entry, side="right"))
        found = at < len(lengths) and 0 not in lengths[: at + 1]
        return Piece(maker, at, entry - int(ends[at]) + lengths[at]) if found else None
    size = graph.size(name)
    if size is None or any(n != 1 for n in size):
        return None
    if node.op_type in ("Unsqueeze", "Squeeze", "Cast", "Identity"):
        return Piece(maker, 0, 0)
    constants = [at for at, operand in enumerate(node.input) if operand in graph.initializers]
    if node.op_type == "Mul" and len(constants) == 1:
        return Piece(maker, constants[0], 0, times=True)
    return None
