"""torch-pruning as its own documentation and tests use it."""

from __future__ import annotations

import copy
import math
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torchvision.models import VisionTransformer

_CLASSES = 1000
LIMIT = 300.0
"""Seconds for one prune."""
_MEMORY = 12 << 30
"""Bytes for one prune."""
_CLOSE = 0.005
"""How near the share of parameters kept must come to the one that is asked for."""


def groups(module: nn.Module, image: Tensor) -> list[Any]:
    """Its analysis: the dependency graph, and all groups of coupled channels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=image)
        return list(graph.get_all_groups())


def prune(module: nn.Module, image: Tensor, ratio: float = 0.5, round_to: int | None = None) -> nn.Module:
    """Its whole prune, in place: graph, scores (ℓ2), choice, cut. The classifier stays.

    A vision transformer keeps a multiple of its number of heads, and is told its new width, as in its own tests.
    """
    transformer = isinstance(module, VisionTransformer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.MagnitudePruner(
            module,
            example_inputs=image,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            round_to=_multiple(module, round_to) if transformer else round_to,
            ignored_layers=[m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == _CLASSES],
        )
        pruner.step()
    if transformer:
        module.hidden_dim = module.conv_proj.out_channels
    return module


def _multiple(module: nn.Module, round_to: int | None) -> int:
    heads = int(module.encoder.layers[0].num_heads)
    return heads if round_to is None else math.lcm(heads, round_to)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError or MemoryError where what is done within takes more than it may.

    On some networks a prune has not ended in minutes, on some it asks for more memory than the machine has.
    """

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    space, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (space, most))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def why(problem: Exception) -> str:
    """An error in one line."""
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0][:200]}"


def parameters(module: nn.Module) -> int:
    """How many numbers train."""
    return sum(p.numel() for p in module.parameters())


def macs(module: nn.Module, image: Tensor) -> float:
    """Multiply-accumulates for one image, by its own count."""
    with torch.no_grad():
        return float(tp.utils.count_ops_and_params(module, image)[0])


def pruned_to(
    source: nn.Module, image: Tensor, kept: float, round_to: int | None = None, tries: int = 7
) -> tuple[nn.Module, float, float]:
    """A copy pruned to about this share of its parameters, the share that it has, and the ratio that gave it.

    A ratio of one half is tried first; where it is off, bisection finds the nearest.
    """
    full = parameters(source)
    low, high, ratio = 0.0, 1.0, 0.5
    best: tuple[nn.Module, float, float] | None = None
    for _ in range(tries):
        with limited(LIMIT):
            module = prune(copy.deepcopy(source), image, ratio, round_to)
        share = parameters(module) / full
        if best is None or abs(share - kept) < abs(best[1] - kept):
            best = (module, share, ratio)
        if abs(share - kept) < _CLOSE:
            break
        low, high = (ratio, high) if share > kept else (low, ratio)
        ratio = (low + high) / 2
    assert best is not None
    return best
