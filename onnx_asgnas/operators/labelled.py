"""The labels of one tensor.

Every (initializer, axis, index) that may leave is a number. A tensor's labels are an integer array that broadcasts to
its shape: size 1 on axes that carry none, -1 for none. Beside each label moves one bit: is the channel exactly zero
once the zeroed variables of its group are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Flag, auto
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Bits = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


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
    """The labels start, start + 1, … of one axis of an initializer (of a tensor, for a SOURCE).

    `labels` is the one array of them, which identifies the axis wherever it is handed on.
    """

    owner: str
    axis: int
    kind: Kind
    start: int
    length: int
    labels: Ids

    @property
    def zeroed(self) -> bool:
        """Are its slices set to zero with their group, rather than only cut."""
        return bool(self.kind & (Kind.PRODUCED | Kind.AFFINE))


@dataclass(eq=False, slots=True)  # to freeze it would take as long again: several are made for every node
class Labelled:
    """The labels of a tensor, and beside each whether its channel is exactly zero once its group is.

    Not to be changed: nodes share them.
    """

    ids: Ids
    zero: Bits
    vector: Ids | None = None
    """The labels as they were made, where they are those of one axis, none left out."""

    @classmethod
    def none(cls, rank: int) -> Labelled:
        """No labels on a tensor of that rank."""
        return _nothing(rank)

    @classmethod
    def of(cls, ids: Ids, zero: Bits | bool) -> Labelled:
        """These labels, with a bit for each or one for all."""
        if isinstance(zero, bool):
            return cls(ids, equal_bits(ids.shape, zero))
        return cls(ids, np.array(np.broadcast_to(zero, ids.shape)))

    @property
    def any(self) -> bool:
        """Is there a label at all."""
        return self.vector is not None or bool((self.ids >= 0).any())

    @property
    def long(self) -> tuple[int, ...]:
        """The axes along which the labels vary."""
        return tuple([axis for axis, count in enumerate(self.ids.shape) if count > 1])

    def map(self, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Labelled:
        """The same rearrangement of the labels and of their bits."""
        return Labelled(change(self.ids), change(self.zero))  # type: ignore[arg-type]

    def slab(self, axes: Iterable[int]) -> Labelled:
        """One index of these axes for all, zero where all are zero."""
        axes = tuple(axes)
        where = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(self.ids.ndim))
        return Labelled(self.ids[where], np.logical_and.reduce(self.zero, axis=axes, keepdims=True))

    def along(self, axis: int) -> Ids:
        """The labels by their place on an axis, [length, rest]: an index leaves when all its labels do."""
        if self.ids.size == self.ids.shape[axis]:
            return self.ids.reshape(-1, 1)
        return slabs(self.ids, axis)


def spread(array: NDArray[Scalar], shape: tuple[int, ...]) -> NDArray[Scalar]:
    """An array at a shape that it broadcasts to; most have it already, and numpy takes its time to find that out."""
    return array if array.shape == shape else np.broadcast_to(array, shape)


def slabs(array: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
    """An array as a table [length of the axis, rest]."""
    order = (axis, *range(axis), *range(axis + 1, array.ndim))
    return np.ascontiguousarray(array.transpose(order)).reshape(array.shape[axis], -1)


@lru_cache(maxsize=32)
def _nothing(rank: int) -> Labelled:
    return Labelled(np.full((1,) * rank, -1, np.int64), equal_bits((1,) * rank, False))


@lru_cache(maxsize=256)
def no_channels(length: int) -> Labelled:
    """A vector of that length without labels."""
    return Labelled(np.full(length, -1, np.int64), equal_bits((length,), False))


@lru_cache(maxsize=1024)
def equal_bits(shape: tuple[int, ...], value: bool) -> Bits:
    """An array of equal bits that many share: it is not to be written to."""
    bits = np.full(shape, value)
    bits.flags.writeable = False
    return bits
