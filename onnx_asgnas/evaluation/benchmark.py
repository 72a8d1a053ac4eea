"""Full against compact: parameters, multiply-accumulates, file size, latency, memory and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx_asgnas.evaluation.accuracy import accuracy, measured
from onnx_asgnas.evaluation.latency import Latency, measure_latency
from onnx_asgnas.evaluation.memory import peak_memory
from onnx_asgnas.evaluation.profile import profile
from onnx_asgnas.evaluation.verification import Verification
from onnx_asgnas.graph import ModelSource, TraceGraph

if TYPE_CHECKING:
    from onnx_asgnas.training.data import Split
    from onnx_asgnas.training.metrics import Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What was measured of one model; None for what was not.

    `params` are trainable, `macs` for one example, `bytes` the size of the file, `latency_ms` in milliseconds a run,
    `accuracy` a fraction from 0 to 1, `metrics` all that was measured on data by name, `peak_memory` in bytes.
    """

    params: int
    macs: int
    bytes: int
    latency_ms: Latency | None = None
    accuracy: float | None = None
    metrics: Mapping[str, float | None] | None = None
    peak_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: null for what was not measured."""
        return {
            "params": self.params,
            "macs": self.macs,
            "bytes": self.bytes,
            "latency_ms": None if self.latency_ms is None else self.latency_ms.to_dict(),
            "accuracy": self.accuracy,
            "metrics": None if self.metrics is None else dict(self.metrics),
            "peak_memory": self.peak_memory,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The fraction of the full model's parameters and multiply-accumulates that the compact one has."""

    params: float
    macs: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"params": self.params, "macs": self.macs}


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Models side by side, the full one first, and whether the compact one was verified to give the same."""

    models: tuple[ModelFacts, ...]
    verification: Verification | None = None

    @property
    def full(self) -> ModelFacts:
        """The model that the others are measured against."""
        return self.models[0]

    @property
    def compact(self) -> ModelFacts:
        """The model that came of it; the full one itself where there is no other."""
        return self.models[min(1, len(self.models) - 1)]

    @property
    def kept(self) -> Kept:
        """What is left of the full model in the compact one."""
        return self.kept_by(self.compact)

    def kept_by(self, facts: ModelFacts) -> Kept:
        """What is left of the full model in another one."""
        return Kept(params=_fraction(facts.params, self.full.params), macs=_fraction(facts.macs, self.full.macs))

    @property
    def latency_ratio(self) -> float | None:
        """The compact model's time over the full one's, the median of paired runs; None where not measured."""
        return None if self.compact.latency_ms is None else self.compact.latency_ms.ratio

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `full`, `compact`, `kept`, `verified` and `latency_ratio`, or a list of `models` if more than two.

        Of a full model alone all but `full` are null.
        """
        if len(self.models) > 2:
            return {"models": [facts.to_dict() | {"kept": self.kept_by(facts).to_dict()} for facts in self.models]}
        alone = len(self.models) == 1
        return {
            "full": self.full.to_dict(),
            "compact": None if alone else self.compact.to_dict(),
            "kept": None if alone else self.kept.to_dict(),
            "verified": None if self.verification is None else self.verification.to_dict(),
            "latency_ratio": None if alone else self.latency_ratio,
        }


def benchmark(
    full: ModelSource | TraceGraph,
    *compact: ModelSource | TraceGraph,
    split: Split | None = None,
    judge: Callable[[], Judge] | None = None,
    verification: Verification | None = None,
    batch: int = 1,
    threads: int | None = None,
    seconds: float | None = 2.0,
    memory: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Measure a full model and those made from it, in their normal form and in onnxruntime.

    `seconds` is the time for the latency of each model, which are run in turn; None leaves latency out. On `split`, if
    it is given, the metrics of a new `judge` for each model are measured, or top-1 accuracy without one; peak memory
    with `memory` (in a process per model). `verification` is what `verify` gave of the first two, to stand beside the
    figures. Raises as `measure_latency`, `accuracy` and `peak_memory` do.
    """
    graphs = [model if isinstance(model, TraceGraph) else TraceGraph.of(model) for model in (full, *compact)]
    latencies: Sequence[Latency | None] = [None] * len(graphs)
    if seconds is not None:
        latencies = measure_latency(graphs, batch=batch, threads=threads, seconds=seconds, seed=seed)
    facts = []
    for graph, latency in zip(graphs, latencies, strict=True):
        cost = profile(graph)
        right, figures = _judged(graph, split, judge, threads)
        facts.append(
            ModelFacts(
                params=cost.params,
                macs=cost.macs,
                bytes=cost.bytes,
                latency_ms=latency,
                accuracy=right,
                metrics=figures,
                peak_memory=peak_memory(graph, batch=batch, threads=threads, seed=seed) if memory else None,
            )
        )
    return Benchmark(models=tuple(facts), verification=verification)


def _judged(
    graph: TraceGraph, split: Split | None, judge: Callable[[], Judge] | None, threads: int | None
) -> tuple[float | None, Mapping[str, float | None] | None]:
    """The accuracy of a model on a split and all metrics; None for what is not measured."""
    if split is None:
        return None, None
    if judge is None:
        right = accuracy(graph, split, threads=threads)
        return right, {"top1": right}
    found = measured(graph, split, judge(), threads=threads)
    return found.accuracy(), found.values()


def _fraction(part: int, whole: int) -> float:
    """Of nothing, all is kept."""
    return part / whole if whole else 1.0
