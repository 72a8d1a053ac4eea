"""The first training losses of each framework's model on the same data in the same order, and what a step costs.

Training is chaotic: what rounding leaves between two computations of one gradient grows with every step, the faster the
higher the learning rate. So each rate has a control, the first model with one weight moved to the next number in
float32: no two orders of summation can be asked to stay closer than that does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.frameworks import torch_networks
from benchmarks.frameworks.contenders import CONTROL, IMAGE, Files, Network
from onnx_asgnas.runs import data_for
from onnx_asgnas.training.bridge import OnnxModule

ITSELF = "PyTorch itself"
"""The module, trained by PyTorch without any ONNX."""
RATES = (0.0002, 0.05)
"""A rate at which 20 steps still tell models apart, and the default of a search."""
STEPS = 20
_TIMED, _WARM_UP = 60, 5
_BATCH, _MOMENTUM = 32, 0.9

Batches = Mapping[str, Sequence[tuple[torch.Tensor, torch.Tensor]]]


def run(files: Files, network: Network, frameworks: Sequence[str]) -> dict[str, Any]:
    """Plain momentum SGD, one step of each contender in turn."""
    torch.set_num_threads(1)
    given = files.contenders(network, frameworks, 0)
    batches = _batches(given)
    found = {str(rate): _trained(_modules(files, network, given), batches, rate, STEPS)[0] for rate in RATES}
    modules = _modules(files, network, given)
    del modules[CONTROL]
    _, times = _trained(modules, batches, RATES[0], _TIMED)
    return {"losses": found, "step": _figures(times)}


def _batches(given: Mapping[str, tuple[Path, Path]]) -> Batches:
    found = {}
    for name, (model, data) in given.items():
        drawn = data_for(model, f"npz:{data}").train.batches(_BATCH, shuffle=True, seed=0, epoch=0)
        found[name] = [
            (inputs[IMAGE], labels) for inputs, labels in islice(drawn, _TIMED) if isinstance(labels, torch.Tensor)
        ]
    return found | {ITSELF: found[CONTROL]}


def _modules(files: Files, network: Network, given: Mapping[str, tuple[Path, Path]]) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {name: OnnxModule(model, threads=1) for name, (model, _) in given.items()}
    modules[ITSELF] = getattr(torch_networks, network.name)(str(files.weights(network, 0)), network.width)
    return modules


def _trained(
    modules: Mapping[str, nn.Module], batches: Batches, rate: float, steps: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The losses and the seconds of every step of each module."""
    optimizers = {name: torch.optim.SGD(m.train().parameters(), rate, _MOMENTUM) for name, m in modules.items()}
    losses: dict[str, list[float]] = {name: [] for name in modules}
    times: dict[str, list[float]] = {name: [] for name in modules}
    random = np.random.default_rng(0)
    for step in range(steps):
        for name in random.permutation(list(modules)).tolist():
            began = time.perf_counter()
            losses[name].append(_step(modules[name], optimizers[name], *batches[name][step]))
            times[name].append(time.perf_counter() - began)
    return losses, times


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(module(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _figures(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Milliseconds, and the median ratio to PyTorch itself in the same round."""
    own = np.array(times[ITSELF][_WARM_UP:])
    return {
        name: {
            "milliseconds": round(float(np.median(values[_WARM_UP:])) * 1e3, 2),
            "ratio": round(float(np.median(np.array(values[_WARM_UP:]) / own)), 3),
        }
        for name, values in times.items()
    }
