from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnx_asgnas.evaluation import Benchmark, Latency, ModelFacts
from onnx_asgnas.report import comparison_rows

FULL = ModelFacts(
    params=12610,
    macs=2_558_096,
    bytes=61202,
    latency_ms=Latency(median=0.12, p95=0.2, runs=100, ratio=1.0),
    accuracy=0.831,
    peak_memory=9_000_000,
)
COMPACT = ModelFacts(
    params=4890,
    macs=1_044_368,
    bytes=24239,
    latency_ms=Latency(median=0.06, p95=0.2, runs=100, ratio=0.45),
    accuracy=0.829,
    peak_memory=8_100_000,
)


def test_full_against_compact() -> None:
    assert comparison_rows(Benchmark(models=(FULL, COMPACT)).to_dict()) == [
        ("", "full", "compact", "change"),
        ("parameters", "12,610", "4,890", "−61.2 %"),
        ("multiply-accumulates", "2.56 M", "1.04 M", "−59.2 %"),
        ("file", "61.2 kB", "24.2 kB", "−60.4 %"),
        ("latency, median", "0.120 ms", "0.060 ms", "−55.0 %"),
        ("latency, 95th percentile", "0.200 ms", "0.200 ms", "0.0 %"),
        ("peak memory", "9.00 MB", "8.10 MB", "−10.0 %"),
        ("accuracy", "83.1 %", "82.9 %", "−0.2 points"),
    ]


def test_what_nobody_measured_has_no_row() -> None:
    bare = ModelFacts(params=10, macs=20, bytes=30)
    rows = comparison_rows(Benchmark(models=(bare, bare)).to_dict())
    assert [row[0] for row in rows] == ["", "parameters", "multiply-accumulates", "file"]
    half = comparison_rows(Benchmark(models=(FULL, bare)).to_dict())
    assert half[-1] == ("accuracy", "83.1 %", "–", "–")


def test_the_form_that_other_versions_wrote() -> None:
    facts: dict[str, Any] = Benchmark(models=(FULL, COMPACT)).to_dict()
    del facts["latency_ratio"], facts["full"]["peak_memory"], facts["compact"]["peak_memory"]
    rows = dict((row[0], row[1:]) for row in comparison_rows(facts))
    assert rows["latency, median"][-1] == "−50.0 %"
    assert "peak memory" not in rows


def test_one_model_and_several() -> None:
    alone = comparison_rows(Benchmark(models=(FULL,)).to_dict())
    assert alone[0] == ("", "full") and alone[1] == ("parameters", "12,610")
    several = comparison_rows(Benchmark(models=(FULL, COMPACT, COMPACT)).to_dict())
    assert several[0] == ("", "full", "model 1", "model 2")
    assert several[1] == ("parameters", "12,610", "4,890", "4,890")


def test_metrics_stand_beside_the_accuracy_that_is_one_of_them() -> None:
    models = (
        replace(FULL, metrics={"top1": 0.831, "top5": 0.99, "perplexity": 12.0}),
        replace(COMPACT, metrics={"top1": 0.829, "top5": 0.98, "perplexity": 15.0}),
    )
    rows = comparison_rows(Benchmark(models=models).to_dict())
    assert rows[-3:] == [
        ("accuracy", "83.1 %", "82.9 %", "−0.2 points"),
        ("top5", "99.0 %", "98.0 %", "−1.0 points"),
        ("perplexity", "12", "15", "+25.0 %"),
    ]
