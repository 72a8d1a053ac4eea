"""What computes outputs and gradients of a training graph: one engine per runtime, behind one Protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.errors import InputError
from onnx_asgnas.graph.packages import can_train

if TYPE_CHECKING:
    from onnx_asgnas.training.lowering import Dialect, TrainingGraph

logger = logging.getLogger(__name__)


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


def _ort(graph: TrainingGraph, held: dict[str, torch.Tensor], options: EngineOptions) -> Engine:
    from onnx_asgnas.training.engines.ort_engine import OrtEngine

    return OrtEngine(graph, held, threads=options.threads, device=options.device)


def _torch(graph: TrainingGraph, held: dict[str, torch.Tensor], options: EngineOptions) -> Engine:
    from onnx_asgnas.training.engines.torch_engine import TorchEngine

    return TorchEngine(graph, held, options)


def _ort_dialect() -> Dialect:
    from onnx_asgnas.training.lowering import ORT

    return ORT


def _torch_dialect() -> Dialect:
    from onnx_asgnas.training.engines.torch_engine import TORCH

    return TORCH


_Maker: TypeAlias = "Callable[[TrainingGraph, dict[str, torch.Tensor], EngineOptions], Engine]"
_ENGINES: dict[str, tuple[_Maker, Callable[[], Dialect]]] = {
    "ort": (_ort, _ort_dialect),
    "torch": (_torch, _torch_dialect),
}


def engine_names() -> tuple[str, ...]:
    """What may be asked for, `auto` first."""
    return ("auto", *_ENGINES)


def resolve_engine(name: str, device: str = "cpu") -> str:
    """The engine that a name stands for; raises InputError for a name that is none.

    `auto` is `ort` on the CPU where onnxruntime-training is installed, else `torch`.
    """
    if name not in engine_names():
        raise InputError(
            f"there is no engine {name!r}", fix=f"Choose one of: {', '.join(engine_names())}.", engine=name
        )
    if name != "auto":
        return name
    chosen = "ort" if torch.device(device).type == "cpu" and can_train() else "torch"
    logger.info("engine %s: %s", chosen, engine_reason(chosen, device))
    return chosen


def engine_reason(name: str, device: str = "cpu") -> str:
    """Why `auto` takes this engine."""
    if name == "ort":
        return "onnxruntime-training is installed"
    if torch.device(device).type != "cpu":
        return f"the network is on {device}"
    return "onnxruntime-training is not installed"


def dialect_of(name: str) -> Dialect:
    """Which operators an engine differentiates as they stand; `name` is one that `resolve_engine` gave."""
    return _ENGINES[name][1]()


def create_engine(graph: TrainingGraph, held: dict[str, torch.Tensor], options: EngineOptions | None = None) -> Engine:
    """An engine for a training graph, lowered to its dialect.

    Raises InputError for an unknown name, or for options that the engine has not, and PackageError if it is not
    installed.
    """
    options = options or EngineOptions()
    name = resolve_engine(options.engine, options.device)
    if name == "ort":
        refuse_torch_options(options)
    return _ENGINES[name][0](graph, held, options)


def refuse_torch_options(options: EngineOptions) -> None:
    """Raise InputError for options or a device that the ort engine has not."""
    from onnx_asgnas.training.engines.ort_session import providers_on

    given = {"channels_last": options.channels_last, "autocast": options.autocast, "compile": options.compile}
    others = [name for name, value in given.items() if value]
    if others:
        raise InputError(
            f"the ort engine trains in float32 as the graph stands, and has no {' and no '.join(others)}",
            fix="Use engine torch.",
        )
    providers_on(options.device)
