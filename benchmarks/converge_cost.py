"""What a step of the last phase costs, on the compact network, against one of the warm-up on the whole one.

Both networks take steps in turn in one process, so that drift hits both alike. Random data; printed are medians.

    python benchmarks/converge_cost.py "models:stackedunets?width=16" --mode prune --keep-macs 0.5
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.converters import convert
from onnx_asgnas.pipeline import rebuilding
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.data import Batch
from onnx_asgnas.training.events import Timing
from onnx_asgnas.training.gradients import Parts
from onnx_asgnas.training.h2spg import H2SPG, Phase
from onnx_asgnas.training.losses import objective

LOSS = objective("cross_entropy")


def optimiser(module: OnnxModule, space: SearchSpace, config: SearchConfig, **schedule: float) -> H2SPG:
    """With the paper's score, which needs no evaluations."""
    return H2SPG(
        module,
        space,
        target=config.target,
        score="paper",
        lr=1e-4,
        momentum=0.9,
        **schedule,  # type: ignore[arg-type]
    )


def step(module: OnnxModule, optimizer: H2SPG, batch: Batch, timing: Timing) -> float:
    """One whole step; the seconds that it took."""
    began = time.perf_counter()
    Parts().gradients(module.train(), LOSS, batch, timing)
    optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", nargs="?", default="models:stackedunets?width=16", help="what convert takes")
    parser.add_argument("--mode", default="prune")
    parser.add_argument("--keep-macs", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = SearchConfig(
        data="",
        target=Target(keep_macs=arguments.keep_macs),
        mode=arguments.mode,
        engine=arguments.engine,
        threads=arguments.threads,
    )
    space = analyze(convert(arguments.source), mode=arguments.mode)
    assert space.graph is not None
    whole, ready = (OnnxModule(space.graph, arguments.engine, threads=arguments.threads) for _ in range(2))
    (name,) = whole.input_names
    shape = space.graph.size(name)
    assert shape is not None
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.standard_normal((arguments.batch, *shape[1:])).astype(np.float32))
    batch = {name: images}, torch.from_numpy(random.integers(0, 10, arguments.batch))

    warm_up = optimiser(whole, space, config, total_steps=10**6, select_at=0.9, zero_at=0.95)
    converge = optimiser(ready, space, config, total_steps=10, select_at=0.1, zero_at=0.3)
    while converge.phase is not Phase.CONVERGE:
        step(ready, converge, batch, Timing())
    assert converge.selection is not None
    began = time.perf_counter()
    narrowed = rebuilding(space, config)(ready, converge.selection)
    assert narrowed is not None
    converge.narrow(narrowed)
    rebuilt = time.perf_counter() - began

    times: tuple[list[float], list[float]] = [], []
    timings = Timing(), Timing()
    for number in range(arguments.steps + 3):
        seconds = (
            step(whole, warm_up, batch, timings[0]),
            step(narrowed.module, converge, batch, timings[1]),
        )
        if number >= 3:
            for kept, value in zip(times, seconds, strict=True):
                kept.append(value)
    first, last = (statistics.median(each) for each in times)
    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
    print(f"{arguments.source}, mode {arguments.mode}, batch {arguments.batch}, engine {arguments.engine}")
    print(f"multiply-accumulates kept: {converge.selection.kept_macs:.3f}; rebuilding took {rebuilt:.2f} s")
    print(f"step of the warm-up {first * 1e3:.1f} ms, of the last phase {last * 1e3:.1f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
