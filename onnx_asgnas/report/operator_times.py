"""Where the time of a model goes, operator by operator, as onnxruntime's own profile tells it."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.inputs import made_up_inputs
from onnx_asgnas.graph.packages import import_onnxruntime
from onnx_asgnas.graph.weights import LIMIT, bytes_of, tensors_of

_WARM_UP = 3
"""Runs that are not counted."""
_FEWEST, _MOST = 5, 200
"""How often each model is run, whatever time that takes."""
_MOST_EVENTS = 100_000
"""The runtime keeps a million of them and drops what comes later."""
_QUIET = 4
_KERNEL = "_kernel_time"
_BLOCKED = "_nchwc"
"""What onnxruntime adds to the name of a convolution in its own layout."""


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """The mean time of one operator of the optimised graph, in microseconds, the slowest tenth of its runs left out.

    `name` is the operator's own, or that of one of those that onnxruntime made one of.
    """

    name: str
    op_type: str
    microseconds: float


def operator_times(
    models: Sequence[TraceGraph], *, batch: int = 1, threads: int | None = None, seconds: float = 0.1, seed: int = 0
) -> tuple[tuple[OperatorTime, ...], ...] | None:
    """The operators of each model in the order in which they run, with all graph optimisation.

    The models run in turn, for about `seconds` each. None where one is too large for a single message. Each operator is
    timed by itself, so the sum leaves out what the runtime does between them.
    """
    if any(sum(map(bytes_of, tensors_of(graph.model.graph))) >= LIMIT for graph in models):
        return None
    inputs = [made_up_inputs(graph, batch, seed) for graph in models]
    with tempfile.TemporaryDirectory() as folder:
        sessions = [_session(graph, threads, Path(folder) / str(at)) for at, graph in enumerate(models)]
        most = max(_FEWEST, min(_MOST, _MOST_EVENTS // max(len(graph.nodes) for graph in models)))
        end, runs = time.perf_counter() + seconds * len(models), 0
        while runs < _WARM_UP + _FEWEST or (runs < most and time.perf_counter() < end):
            for session, given in zip(sessions, inputs, strict=True):
                session.run(None, given)
            runs += 1
        return tuple(_means(json.loads(_profile_of(session))) for session in sessions)


def by_type(times: Iterable[OperatorTime]) -> dict[str, tuple[int, float]]:
    """How many operators of each type there are, and their microseconds together; the slowest type first."""
    found: dict[str, tuple[int, float]] = {}
    for entry in times:
        count, total = found.get(entry.op_type, (0, 0.0))
        found[entry.op_type] = (count + 1, total + entry.microseconds)
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def _session(graph: TraceGraph, threads: int | None, prefix: Path) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _profile_of(session: Any) -> str:
    path = Path(session.end_profiling())
    try:
        return path.read_text(encoding="utf-8")
    finally:
        os.unlink(path)


def _means(events: Iterable[dict[str, Any]]) -> tuple[OperatorTime, ...]:
    """Each operator's mean time over the runs but the first, in the order of the first run.

    The runtime counts whole microseconds, of which a median would say little.
    """
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            key = event["name"].removesuffix(_KERNEL).removesuffix(_BLOCKED), event["args"]["op_name"]
            found[key].append(float(event["dur"]))
    return tuple(
        OperatorTime(name, kind, statistics.fmean(_fast(times[_WARM_UP:] or times)))
        for (name, kind), times in found.items()
    )


def _fast(times: Sequence[float]) -> Sequence[float]:
    return sorted(times)[: max(1, len(times) * 9 // 10)]
