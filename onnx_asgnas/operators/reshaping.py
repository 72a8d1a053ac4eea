"""Labels through a Reshape: axes are matched by equal products, and only those that carry labels are expanded.

The axes before and after are cut into common factors: [N, C, H, W] to [N, G, C/G·H·W] has the factors N, G, C/G, H, W.
A factor of an unlabelled axis has size 1 in the labels, so nothing is spread over images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from math import prod
from operator import mul

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.operators.labelled import Labelled, spread
from onnx_asgnas.operators.labels import LabelFlow

_LARGEST = 65_536
"""Labels that a merge with unlabelled axes would spread over more places than this are mixed instead."""

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Factors:
    """The common factors of two shapes: their sizes, and which of them make up each axis before and after."""

    sizes: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=512)
def common_factors(source: Sizes, target: Sizes) -> Factors | None:
    """The coarsest factors that both shapes are products of; None where their boundaries do not divide each other."""
    ends = [list(accumulate(shape, mul, initial=1)) for shape in (source, target)]
    bounds = sorted({*ends[0], *ends[1]})
    if any(high % low for low, high in pairwise(bounds)):
        return None
    place = {bound: at for at, bound in enumerate(bounds)}
    before, after = (tuple(tuple(range(place[a], place[b])) for a, b in pairwise(own)) for own in ends)
    return Factors(tuple(high // low for low, high in pairwise(bounds)), before, after)


def reshape_labels(
    flow: LabelFlow, found: Labelled, source: Sizes, target: Sizes, again: tuple[Sizes, Sizes] | None = None
) -> Labelled:
    """The labels of a Reshape's output, which goes from the shape `source` to `target`.

    A labelled axis that is merged with unlabelled ones is spread over them where they are few; where they are many,
    what lies beside them is mixed. `again` are the two shapes with other lengths of open axes: the factors that carry
    labels must be the same there, or the labels stay.
    """
    if 0 in source or prod(source) != prod(target):
        flow.freeze(found.ids, f"{flow.node.op_type} of a shape that is not known")
        return Labelled.none(len(target))
    begin, end = _labelled_part(found.long[0], found.long[-1], source, target)
    part = common_factors(source[begin[0] : end[0]], target[begin[1] : end[1]])
    if part is None or (again is not None and not _same_labelled_factors(found.long, (source, target), again)):
        flow.freeze(found.ids, f"{flow.node.op_type} cuts them into parts that do not divide each other")
        return Labelled.none(len(target))
    inner = found.map(lambda array: array.reshape(array.shape[begin[0] : end[0]]))
    factored = inner.map(lambda array: array.reshape(_factor_shape(array, part)))
    mixed = _mixed_factors(part, factored)
    if mixed:
        factored = flow.mix(factored, mixed, f"{flow.node.op_type} merges them with an axis of many positions")
        if not factored.any:
            return Labelled.none(len(target))
    lead, trail = (1,) * begin[1], (1,) * (len(target) - end[1])
    merged = factored.map(lambda array: _merged(array, part))
    return _trimmed(merged.map(lambda array: array.reshape(lead + array.shape + trail)))


@lru_cache(maxsize=512)
def _same_labelled_factors(long: Sizes, one: tuple[Sizes, Sizes], two: tuple[Sizes, Sizes]) -> bool:
    """Do the factors of labelled axes go to the same axes for two choices of the open lengths.

    Nor may they be merged with a part of an open axis: how it is parted would depend on how many labels there are.
    """
    signatures = []
    for source, target in (one, two):
        factors = common_factors(source, target) if 0 not in source and prod(source) == prod(target) else None
        if factors is None:
            return False
        varies = [axis for axis, n in enumerate(source) if n != (two if source is one[0] else one)[0][axis]]
        opened = [set(factors.before[axis]) for axis in varies if axis not in long]
        labelled = {f for axis in long for f in factors.before[axis]}
        merged = [set(own) for own in factors.after if labelled.intersection(own)]
        if any(whole & own and whole - own for own in merged for whole in opened):
            return False
        for axis in varies if source is one[0] else ():
            inner = [at for at, own in enumerate(factors.after) if set(own).intersection(factors.before[axis])][1:]
            if axis in long and any(one[1][at] != two[1][at] for at in inner):
                return False  # what repeats has to be outermost, and what is repeated fixed
        fixed = {f for axis in long if axis not in varies for f in factors.before[axis]}
        signatures.append([[factors.sizes[f] for f in own if f in fixed] for own in factors.after])
    return signatures[0] == signatures[1]


@lru_cache(maxsize=512)
def _labelled_part(first: int, last: int, source: Sizes, target: Sizes) -> tuple[tuple[int, int], tuple[int, int]]:
    """The run of axes, before and after, that holds all from the first labelled one to the last: begin and end."""
    cuts = _cuts(source, target)
    begin = max([cut for cut in cuts if cut[0] <= first], default=(0, 0))
    return begin, min([cut for cut in cuts if cut[0] > last], default=(len(source), len(target)))


def _cuts(source: Sizes, target: Sizes) -> list[tuple[int, int]]:
    """Where a run of axes of one shape ends together with a run of the other."""
    ends: dict[int, int] = {}
    for j, product in enumerate(accumulate(target, mul, initial=1)):
        ends.setdefault(product, j)
    found: list[tuple[int, int]] = []
    for i, product in enumerate(accumulate(source, mul, initial=1)):
        if product in ends and (not found or found[-1][1] != ends[product]):
            found.append((i, ends[product]))
    return found


def _factor_shape(array: NDArray[np.generic], factors: Factors) -> list[int]:
    shape = [1] * len(factors.sizes)
    for axis, own in enumerate(factors.before):
        if array.shape[axis] > 1:
            for f in own:
                shape[f] = factors.sizes[f]
    return shape


def _mixed_factors(factors: Factors, found: Labelled) -> list[int]:
    """The labelled factors that would be spread over too many positions."""
    labelled = set(found.long)
    mixed = []
    for own in factors.after:
        here = labelled.intersection(own)
        if here and len(here) < len(own) and prod(factors.sizes[f] for f in own) > _LARGEST:
            mixed += sorted(here)
    return mixed


def _merged(array: NDArray[np.generic], factors: Factors) -> NDArray[np.generic]:
    """The factors that make up each axis merged into it, spread where only some of them vary."""
    whole = list(array.shape)
    for own in factors.after:
        if any(array.shape[f] > 1 for f in own):
            for f in own:
                whole[f] = factors.sizes[f]
    return spread(array, tuple(whole)).reshape([prod(whole[f] for f in own) for own in factors.after])


def _trimmed(found: Labelled) -> Labelled:
    """Labels that do not vary along an axis need no length there, as long as they vary along another."""
    for axis in found.long if len(found.long) > 1 else ():
        same = (found.ids == found.ids.take([0], axis)).all() and (found.zero == found.zero.take([0], axis)).all()
        if same and len(found.long) > 1:
            found = found.map(lambda array, a=axis: array.take([0], a))  # type: ignore[misc]
    return found
