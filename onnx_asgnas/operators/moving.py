"""How operators that only move data act on labels, on activations and on weights alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnx_asgnas.operators.labelled import Ids, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.slots import Counts

Move = Callable[[LabelFlow, Labelled], Labelled]
"""Takes the labels of the first input and gives those of the output; it notes ties and sizes on the way."""


def moves(move: Move) -> Callable[[LabelFlow], None]:
    """The labels of an operator that moves its first input."""

    def labels(flow: LabelFlow) -> None:
        found = flow.read(0)
        if found.any:
            flow.write(move(flow, found))

    return labels


def views(move: Move) -> Callable[[LabelFlow], Sequence[Ids] | None]:
    """The labels of a weight that such an operator moves, an array for each axis that carries some."""

    def view(flow: LabelFlow) -> Sequence[Ids] | None:
        factors = flow.factors(0)
        if factors is None:
            return None
        moved = [move(flow, Labelled.of(ids, True)) for ids in factors]
        return [found.ids for found in moved if found.long]

    return view


def unchanged(flow: LabelFlow, found: Labelled) -> Labelled:
    """The output has the labels of the first input."""
    return found


def part_of(flow: LabelFlow, found: Labelled, axis: int, start: int, stop: int) -> Labelled:
    """The labels of a slice."""
    return found.map(lambda array: array.take(range(start, stop), axis))


def remapped(flow: LabelFlow, position: int, labels: Ids) -> bool:
    """Note that a constant input holds indices of a labelled axis."""
    return flow.size_slot(position, None, labels, Counts.INDICES)


def normalised(axes: Sequence[int] | np.ndarray, rank: int) -> list[int]:
    """Axes counted from the front."""
    return [int(axis) % rank for axis in axes]
