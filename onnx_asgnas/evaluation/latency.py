"""Latency in onnxruntime, models in turn: what the machine does meanwhile hits all of them alike.

The order within a round is drawn anew each time. In a fixed one a model that runs later in the round comes out about
one percent faster than itself (benchmarks/latency_noise.py measures what is left of that).
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from onnx_asgnas.errors import InputError
from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.graph.inputs import made_up_inputs
from onnx_asgnas.graph.runtime import run, session

_WARM_UP = 0.1
"""The part of the time in which runs are not counted: memory is allocated, caches fill, the clock goes up."""
_FEWEST = 5
"""Rounds that are run whatever they take."""
_MOST = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Milliseconds of one run: their median and 95th percentile over `runs` runs.

    `ratio` is the median over all rounds of this model's time over the first model's in the same round.
    """

    median: float
    p95: float
    runs: int
    ratio: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"median": self.median, "p95": self.p95}


def measure_latency(
    models: Sequence[ModelSource | TraceGraph],
    *,
    batch: int = 1,
    threads: int | None = None,
    seconds: float = 2.0,
    seed: int = 0,
) -> tuple[Latency, ...]:
    """The latency of each model in its normal form, in onnxruntime with all graph optimisation.

    Rounds of one run per model, in random order, go on for `seconds` per model, with a warm-up within that time; at
    least five rounds are measured. `batch` counts where a model leaves it open; `threads` is onnxruntime's choice if
    None. Raises ModelError for a model that cannot be read or run, InputError for a batch or time that is none.
    """
    if batch < 1 or not seconds >= 0:
        raise InputError(f"batch is {batch} and seconds is {seconds}", fix="Give a batch of 1 or more, and a time.")
    runners = [_runner(_graph(model), batch, threads, seed) for model in models]
    if not runners:
        return ()
    budget = seconds * len(runners)
    with _no_garbage_collection():
        _rounds(runners, budget * _WARM_UP, fewest=2, seed=seed)
        times = np.array(_rounds(runners, budget * (1 - _WARM_UP), fewest=_FEWEST, seed=seed)) * 1e3
    ratios = np.median(times / times[:, :1], axis=0)
    return tuple(
        Latency(
            median=float(np.median(column)),
            p95=float(np.percentile(column, 95)),
            runs=len(column),
            ratio=float(ratio),
        )
        for column, ratio in zip(times.T, ratios, strict=True)
    )


def _runner(graph: TraceGraph, batch: int, threads: int | None, seed: int) -> Callable[[], object]:
    """One run of a model on inputs that stay the same, checked to work."""
    inputs = made_up_inputs(graph, batch, seed)
    active = session(graph.model, optimised=True, threads=threads)
    run(active, inputs)
    return lambda: active.run(None, inputs)


def _rounds(runners: Sequence[Callable[[], object]], seconds: float, *, fewest: int, seed: int) -> list[list[float]]:
    """Seconds of every run, one row per round."""
    shuffle = random.Random(seed).shuffle
    order = list(range(len(runners)))
    rows: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rows) < fewest or (time.perf_counter() < end and len(rows) < _MOST):
        shuffle(order)
        row = [0.0] * len(runners)
        for at in order:
            start = time.perf_counter()
            runners[at]()
            row[at] = time.perf_counter() - start
        rows.append(row)
    return rows


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _graph(model: ModelSource | TraceGraph) -> TraceGraph:
    return model if isinstance(model, TraceGraph) else TraceGraph.of(model)
