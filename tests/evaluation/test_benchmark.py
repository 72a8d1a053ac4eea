from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnx_asgnas.errors import InputError, ModelError
from onnx_asgnas.evaluation import (
    Benchmark,
    ModelFacts,
    benchmark,
    latency,
    measure_latency,
    peak_memory,
    profile,
    verify,
)
from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.space import analyze
from onnx_asgnas.training.data import ArraySplit

if TYPE_CHECKING:
    from .conftest import Pruned

Parse = Callable[[str], onnx.ModelProto]


def random_split(model: onnx.ModelProto, samples: int = 20) -> ArraySplit:
    (value,) = model.graph.input
    random = np.random.default_rng(0)
    shape = [samples, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]
    images = random.standard_normal(shape).astype(np.float32)
    return ArraySplit.from_arrays({value.name: images}, random.integers(0, 10, samples))


# Profile


def test_the_profile_is_that_of_the_normal_form(pruned: Pruned) -> None:
    found = profile(pruned.full)
    assert (found.params, found.macs) == (pruned.space.params, pruned.space.macs)
    assert found.bytes == len(normalise(pruned.full).SerializeToString())
    assert profile(TraceGraph.of(pruned.full)) == found
    small = profile(pruned.compact)
    space = analyze(pruned.compact)
    assert (small.params, small.macs) == (space.params, space.macs)
    assert small.params < found.params and small.macs < found.macs and small.bytes < found.bytes


# Latency


def test_models_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each run advances: what is measured is known."""
    now = 0.0
    calls: list[str] = []

    def runner(name: str, *durations: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            assert not gc.isenabled()
            now += durations[calls.count(name) % len(durations)]
            calls.append(name)

        return run

    runners = iter([runner("a", 0.010), runner("b", 0.004, 0.006)])
    monkeypatch.setattr(latency, "_runner", lambda *_: next(runners))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Abs (x) }'
    )
    first, second = measure_latency([model, model], seconds=1.0)
    assert gc.isenabled()
    assert set(zip(calls[::2], calls[1::2], strict=True)) == {("a", "b"), ("b", "a")}, "each once a round, in any order"
    assert first.median == first.p95 == pytest.approx(10) and first.ratio == 1.0
    assert second.median == pytest.approx(5, abs=1.01) and second.p95 == pytest.approx(6)
    assert second.ratio == pytest.approx(second.median / 10)
    assert first.runs == second.runs == pytest.approx(1.8 / 0.015, abs=2), "a tenth of the time is warm-up"
    assert first.to_dict() == {"median": pytest.approx(10), "p95": pytest.approx(10)}


def test_the_time_is_kept_to(pruned: Pruned) -> None:
    start = time.perf_counter()
    found = measure_latency([pruned.full, pruned.compact], seconds=0.05, threads=1)
    assert time.perf_counter() - start < 5
    for one in found:
        assert one.runs >= 5 and 0 < one.median <= one.p95
    assert found[0].ratio == 1.0 and found[1].ratio > 0


def test_a_few_rounds_are_run_whatever_they_take(parse: Parse) -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }")
    assert [one.runs for one in measure_latency([model], seconds=0)] == [5]
    assert measure_latency([]) == ()


def test_wrong_use_of_latency(parse: Parse) -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    with pytest.raises(InputError, match="batch is 0"):
        measure_latency([model], batch=0)
    with pytest.raises(InputError, match="seconds is nan"):
        measure_latency([model], seconds=float("nan"))
    refuses = parse("g (float[N,4] x) => (float[5] y) <int64[1] s = {5}> { y = Reshape (x, s) }")
    with pytest.raises(ModelError, match="refuses the inputs"):
        measure_latency([refuses], seconds=0)


# Memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc: peak_memory gives None")
def test_peak_memory_grows_with_the_activations(parse: Parse) -> None:
    """Two tensors of 32 MB must lie in memory at once, the input and the output."""
    model = parse("g (float[N,1048576] x) => (float[N,1048576] y) { y = Relu (x) }")
    found = peak_memory(model, batch=8, threads=1)
    assert found is not None and 30e6 < found < 150e6


def test_peak_memory_is_not_guessed(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert peak_memory(parse("g (float[N] x) => (float[N] y) { y = Relu (x) }")) is None


def test_a_model_that_fails_in_the_other_process(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_asgnas.evaluation.memory._CHILD", "raise SystemExit('it broke')")
    with pytest.raises(ModelError, match="the model does not run: it broke"):
        peak_memory(parse("g (float[N] x) => (float[N] y) { y = Relu (x) }"))


# All together


def test_full_against_compact(pruned: Pruned) -> None:
    verification = verify(pruned.full, pruned.compact, original=pruned.original)
    found = benchmark(
        pruned.full, pruned.compact, split=random_split(pruned.full), verification=verification, seconds=0.02
    )
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(facts) == {"full", "compact", "kept", "verified", "latency_ratio"}
    for model in (facts["full"], facts["compact"]):
        assert set(model) == {"params", "macs", "bytes", "latency_ms", "accuracy", "metrics", "peak_memory"}
        assert set(model["latency_ms"]) == {"median", "p95"}
    assert facts["full"]["accuracy"] == facts["compact"]["accuracy"], "they are one function"
    assert facts["kept"] == {
        "params": facts["compact"]["params"] / facts["full"]["params"],
        "macs": facts["compact"]["macs"] / facts["full"]["macs"],
    }
    assert facts["verified"] == verification.to_dict()
    assert facts["latency_ratio"] == found.latency_ratio


def test_what_was_not_measured_is_null(pruned: Pruned) -> None:
    found = benchmark(pruned.full, pruned.compact, seconds=None)
    facts = found.to_dict()
    assert facts["full"]["latency_ms"] is facts["full"]["accuracy"] is facts["full"]["peak_memory"] is None
    assert facts["verified"] is facts["latency_ratio"] is None
    assert found.full == ModelFacts(
        **{name: getattr(profile(pruned.full), name) for name in ("params", "macs", "bytes")}
    )


def test_a_model_alone_and_more_than_two(pruned: Pruned) -> None:
    alone = benchmark(pruned.full, seconds=None)
    assert alone.to_dict() == {
        "full": alone.full.to_dict(),
        "compact": None,
        "kept": None,
        "verified": None,
        "latency_ratio": None,
    }
    kept_params = profile(pruned.compact).params / profile(pruned.full).params
    several = benchmark(pruned.full, pruned.compact, pruned.full, seconds=None).to_dict()
    assert set(several) == {"models"}
    assert [model["kept"]["params"] for model in several["models"]] == [1.0, pytest.approx(kept_params), 1.0]


def test_nothing_to_divide_by() -> None:
    nothing = ModelFacts(params=0, macs=0, bytes=10)
    assert Benchmark(models=(nothing, nothing)).kept.to_dict() == {"params": 1.0, "macs": 1.0}
