"""What computes outputs and gradients of a training graph: one engine per runtime, behind one Protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from onnx_asgnas.errors import InputError

if TYPE_CHECKING:
    from onnx_asgnas.training.lowering import TrainingGraph


class Run(Protocol):
    """A forward run that waits for its backward run; dropping it frees its activations."""

    def backward(self, gradients: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
        """The gradients with respect to `graph.wrt`, in its order, given those of the outputs (None: zero).

        It can be called once. An entry for an output that is not differentiable is ignored.
        """
        ...


class Engine(Protocol):
    """A training graph made ready to run.

    The tensors of `held` (parameters and statistics, by name) are those that every run reads: where a user changes one
    in place, the next run sees it. A run writes the running statistics into them.
    """

    @property
    def graph(self) -> TrainingGraph:
        """What it runs."""
        ...

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], Run]:
        """The graph's outputs, in memory of their own, and the run that can go backward.

        The inputs are contiguous, in the order of `graph.inputs`. Any number of runs may wait at the same time.
        Raises DataError where the network refuses the inputs.
        """
        ...


def _ort(graph: TrainingGraph, held: dict[str, torch.Tensor], threads: int | None) -> Engine:
    from onnx_asgnas.training.engines.ort_engine import OrtEngine

    return OrtEngine(graph, held, threads=threads)


_ENGINES: dict[str, Callable[[TrainingGraph, dict[str, torch.Tensor], int | None], Engine]] = {"ort": _ort}


def engine_names() -> tuple[str, ...]:
    """What may be asked for, `auto` first."""
    return ("auto", *_ENGINES)


def resolve_engine(name: str) -> str:
    """The engine that a name stands for, `auto` being the first there is; raises InputError for any other name."""
    if name not in engine_names():
        raise InputError(
            f"there is no engine {name!r}", fix=f"Choose one of: {', '.join(engine_names())}.", engine=name
        )
    return next(iter(_ENGINES)) if name == "auto" else name


def create_engine(
    name: str, graph: TrainingGraph, held: dict[str, torch.Tensor], *, threads: int | None = None
) -> Engine:
    """An engine for a training graph; raises InputError for an unknown name, PackageError if it is not installed."""
    return _ENGINES[resolve_engine(name)](graph, held, threads)
