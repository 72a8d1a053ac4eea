"""Compression without training: analyse, choose by the weights alone, construct, verify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.config import Criterion, Mode, Target, check_widths
from onnx_asgnas.errors import InputError, TargetError
from onnx_asgnas.evaluation import Verification, verify
from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.operators import dequantised
from onnx_asgnas.space import SearchSpace, Selection, analyze, zeroed
from onnx_asgnas.surgery import remove, zero_structures

__all__ = ["Pruned", "cut", "prune"]


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a cut gives: the compact model, and the full one with the chosen groups at zero, which gives the same.

    `kept` is the fraction of the trainable parameters and of the multiply-accumulates that is left, `groups` how many
    structures and channel groups were chosen.
    """

    space: SearchSpace = field(repr=False)
    selection: Selection = field(repr=False)
    compact: onnx.ModelProto = field(repr=False)
    kept: dict[str, float]
    groups: int

    @cached_property
    def zeroed(self) -> onnx.ModelProto:
        """The full model with the chosen groups at zero; made when it is first asked for."""
        return zeroed(self.space, self.space.parts.graph, self.selection.chosen)

    def verify(self, *, seed: int = 0) -> Verification:
        """Compare the two in onnxruntime; `moved` says how far the cut moved the output of the source."""
        return verify(self.zeroed, self.compact, original=self.space.parts.graph.model, seed=seed)


def prune(
    source: ModelSource | TraceGraph,
    target: Target,
    *,
    mode: Mode = "prune",
    criterion: Criterion = "magnitude",
    round_to: int = 1,
    min_channels: int = 1,
    protect: Iterable[str] = (),
    strict: bool = False,
    seed: int = 0,
) -> onnx.ModelProto:
    """The compact model for a target, without training and without data, verified against the full one.

    The groups that leave are chosen by their weights: `magnitude` is their norm, `mean-magnitude` that by the root of
    their size, `random` a draw by `seed`. Layers keep a multiple of `round_to` channels and at least `min_channels`.
    Raises TargetError for a target that cannot be reached, VerificationError if the two models differ.
    """
    result = cut(
        source,
        target,
        mode=mode,
        criterion=criterion,
        round_to=round_to,
        min_channels=min_channels,
        protect=protect,
        strict=strict,
        seed=seed,
    )
    result.verify(seed=seed).require()
    return result.compact


def cut(
    source: ModelSource | TraceGraph | SearchSpace,
    target: Target,
    *,
    mode: Mode = "prune",
    criterion: Criterion = "magnitude",
    round_to: int = 1,
    min_channels: int = 1,
    protect: Iterable[str] = (),
    strict: bool = False,
    seed: int = 0,
) -> Pruned:
    """As `prune`, with all that it made and without the check.

    A search space, where given, is not made again; its own mode counts. Raises TargetError for a target that cannot be
    reached or where nothing can leave, InputError for options that do not fit together.
    """
    space = source if isinstance(source, SearchSpace) else analyze(source, mode=mode, protect=protect, strict=strict)
    graph = space.parts.graph
    _check(space, criterion, round_to=round_to, min_channels=min_channels)
    selection = space.choose(
        redundancy_of(space, criterion, seed), target, round_to=round_to, min_channels=min_channels
    )
    return Pruned(
        space=space,
        selection=selection,
        compact=_without(space, graph, selection.chosen),
        kept={"params": selection.kept_params, "macs": selection.kept_macs},
        groups=len(selection.chosen),
    )


def _without(space: SearchSpace, graph: TraceGraph, chosen: Sequence[int]) -> onnx.ModelProto:
    """The model without the chosen groups, and without those that are at zero anyway."""
    count = len(space.candidates)
    structures = {*(index for index in chosen if index < count), *zero_structures(space, graph)}
    if space.mode == "erase":
        return remove(space, graph, sorted(structures))
    channels = space.channels.at_zero(graph)
    channels[[index - count for index in chosen if index >= count]] = True
    return remove(space, graph, sorted(structures), channels)


def _check(space: SearchSpace, criterion: str, **widths: int) -> None:
    """Refuse what would otherwise do nothing."""
    if criterion not in get_args(Criterion):
        choices = ", ".join(get_args(Criterion))
        raise InputError(f"criterion is {criterion!r}", fix=f"Choose one of: {choices}.", criterion=criterion)
    check_widths(space.mode, **widths)
    if not space.candidates and not _channel_count(space):
        what = {"erase": "structure", "prune": "channel", "joint": "structure and no channel"}[space.mode]
        raise TargetError(
            f"this model has nothing to remove: no {what} may leave",
            fix=f"onnx-asgnas analyze MODEL --mode {space.mode} --explain says why.",
        )


def redundancy_of(
    space: SearchSpace, criterion: Criterion, seed: int = 0
) -> Callable[[tuple[int, ...]], NDArray[np.float64]]:
    """The redundancy of every group by its weights: minus its norm, or a random number."""
    if criterion == "random":
        values = np.random.default_rng(seed).random(len(space.candidates) + _channel_count(space))
    else:
        squares, sizes = _norms_squared(space)
        values = -np.sqrt(squares / np.maximum(sizes, 1) if criterion == "mean-magnitude" else squares)
    return lambda chosen: values


def _channel_count(space: SearchSpace) -> int:
    return 0 if space.mode == "erase" else space.channels.count


def _norms_squared(space: SearchSpace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """‖x_g‖² and the number of variables of every group: structures, then channels."""
    graph = space.parts.graph
    rows: list[Sequence[float]] = []
    for candidate in space.candidates:
        total, size = 0.0, 0
        for piece in candidate.group.slices:
            values = dequantised(graph, space.parts.rules, piece.initializer)
            part = values if piece.axis is None else values.take(list(piece.indices), piece.axis)
            total, size = total + float(np.square(part, dtype=np.float64).sum()), size + part.size
        rows.append((total, size))
    table = np.array(rows, np.float64).reshape(-1, 2)
    if space.mode == "erase":
        return table[:, 0], table[:, 1]
    squares, sizes = space.channels.norms_squared(graph)
    return np.concatenate([table[:, 0], squares]), np.concatenate([table[:, 1], sizes.astype(np.float64)])
