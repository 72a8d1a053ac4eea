"""The cost of a step of only-train-once's HESSO against torch's own SGD step, on ResNet-50: for comparison with ours.

Version 3.0.1 is written for an older torch and for a GPU. What it imports under names that torch has moved is put
where it looks, and `.cuda()` leaves tensors where they are; its steps run as they are. In the environment of
`make bench-env`:

    python -m pip install --no-deps only-train-once==3.0.1 && python -m pip install graphviz pydot
    python benchmarks/hesso_step.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import torch
import torchvision
from torch.onnx._internal.torchscript_exporter import _globals, utils

_SELECT, _ZERO, _STEPS = 10, 30, 60
_COMMON = {"lr": 1e-4, "weight_decay": 1e-4}


def main() -> None:
    """Both optimisers step in turn on the same made-up gradients; printed are medians of each phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    module = torchvision.models.resnet50(weights=None)
    hesso = _hesso(module)
    twin = [p.detach().clone().requires_grad_() for p in module.parameters()]
    sgd = torch.optim.SGD(twin, momentum=0.9, foreach=True, **_COMMON)
    times = []
    for _ in range(_STEPS):
        for parameter, other in zip(module.parameters(), twin, strict=True):
            parameter.grad = torch.randn_like(parameter) * 1e-3
            other.grad = parameter.grad.clone()
        ticks = [time.perf_counter()]
        for optimizer in (hesso, sgd):
            optimizer.step()
            ticks.append(time.perf_counter())
        times.append((ticks[1] - ticks[0], ticks[2] - ticks[1]))
    print(f"{'phase':10} {'HESSO ms':>9} {'SGD ms':>9} {'ratio':>6}")
    for name, start, end in (("warm-up", 0, _SELECT), ("pruning", _SELECT, _ZERO), ("after", _ZERO, _STEPS)):
        own, plain = (statistics.median(pair[at] for pair in times[start:end]) * 1e3 for at in (0, 1))
        print(f"{name:10} {own:9.2f} {plain:9.2f} {own / plain:6.2f}")


def _hesso(module: torch.nn.Module) -> Any:
    sys.modules["torch.onnx._globals"] = _globals
    sys.modules["torch.optim.optimizer"].required = object()  # type: ignore[attr-defined]
    torch.onnx._optimize_graph = utils._optimize_graph  # type: ignore[attr-defined]
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment,method-assign]
    from only_train_once import OTO

    return OTO(module, torch.randn(1, 3, 224, 224)).hesso(
        variant="sgd",
        first_momentum=0.9,
        target_group_sparsity=0.5,
        start_pruning_step=_SELECT,
        pruning_periods=2,
        pruning_steps=_ZERO - _SELECT,
        **_COMMON,
    )


if __name__ == "__main__":
    main()
