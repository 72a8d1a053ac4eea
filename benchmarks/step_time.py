"""Where the time of one search step goes: engine forward, loss, engine backward, optimiser step.

The same network is trained by torch's SGD and by H2SPG, step by step in turn in one process, so that drift hits both
alike. Printed are medians in milliseconds, for H2SPG those of each phase and their mean weighted by the phases'
lengths. Random data; a step of the measured score is part of the optimiser's time.

    python benchmarks/step_time.py "models:stackedunets?width=8" --batch 64 --steps 100
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from onnx_asgnas.config import Target
from onnx_asgnas.converters import convert
from onnx_asgnas.space import analyze
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.h2spg import H2SPG

PARTS = ("forward", "loss", "backward", "optimizer")


@dataclass
class Run:
    name: str
    module: OnnxModule
    optimizer: torch.optim.Optimizer
    phase: Callable[[], str]
    times: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        phase = self.phase()
        ticks = [time.perf_counter()]
        output = self.module(x)
        ticks.append(time.perf_counter())
        loss = F.cross_entropy(output, labels)
        ticks.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        ticks.append(time.perf_counter())
        self.optimizer.step()
        ticks.append(time.perf_counter())
        self.times.setdefault(phase, []).append(tuple(np.diff(ticks) * 1e3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", nargs="?", default="models:stackedunets?width=8", help="what convert takes")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="length of the training")
    parser.add_argument("--score", default="measured", help="H2SPG's score; the measured one evaluates the same batch")
    parser.add_argument("--remove-groups", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=None, help="of the engine and of torch")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = convert(arguments.source)
    started = time.perf_counter()
    modules = [OnnxModule(model, threads=arguments.threads) for _ in range(2)]
    (shape,) = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    x = torch.randn(arguments.batch, *shape[1:])
    labels = torch.randint(0, modules[0](x).shape[1], (arguments.batch,))
    modules[1](x)
    print(f"{modules[0]}; ready in {(time.perf_counter() - started) / 2:.2f} s")
    sgd, h2spg = optimizers(modules, arguments, x, labels)
    runs = [
        Run("SGD", modules[0], sgd, lambda: "all"),
        Run("H2SPG", modules[1], h2spg, lambda: h2spg.phase.name.lower()),
    ]
    for _ in range(3):  # the first runs lay out memory
        for run in runs:
            run.module(x).sum().backward()
    for _ in range(arguments.steps):
        for run in runs:
            run.step(x, labels)
    show(runs)


def optimizers(
    modules: list[OnnxModule], arguments: argparse.Namespace, x: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.optim.SGD, H2SPG]:
    def evaluate() -> float:
        modules[1].eval()
        with torch.no_grad():
            loss = F.cross_entropy(modules[1](x), labels)
        modules[1].train()
        return loss.item()

    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
    h2spg = H2SPG(
        modules[1],
        analyze(modules[1].source),
        target=Target(remove_groups=arguments.remove_groups),
        total_steps=arguments.steps,
        score=arguments.score,
        evaluate=evaluate,
        **options,
    )
    return torch.optim.SGD(modules[0].parameters(), foreach=True, **options), h2spg


def show(runs: list[Run]) -> None:
    print(
        f"{'':8}{'phase':12}{'steps':>6}" + "".join(f"{part:>11}" for part in (*PARTS, "whole")) + f"{'optimizer':>12}"
    )
    for run in runs:
        rows = {phase: (len(times), np.median(times, axis=0)) for phase, times in run.times.items()}
        if len(rows) > 1:
            weights = [count for count, _ in rows.values()]
            # a mean of the means, since selection happens in one step only
            means = [np.mean(times, axis=0) for times in run.times.values()]
            rows["whole run"] = (sum(weights), np.average(means, axis=0, weights=weights))
        for phase, (count, parts) in rows.items():
            whole = parts.sum()
            print(
                f"{run.name:8}{phase:12}{count:6}"
                + "".join(f"{value:11.2f}" for value in (*parts, whole))
                + f"{parts[-1] / whole:11.1%}"
            )


if __name__ == "__main__":
    main()
