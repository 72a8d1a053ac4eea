"""The comparison's own parts: timing in turn, records, growth, and the page made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks.peers import growth, page, records
from benchmarks.peers.pairs import Times, in_own_process, in_turn

AROUND = {"commit": "abc", "versions": {"onnx": "1"}, "python": "3", "processor": "p", "cores": 2, "load": 0.1}


def speed(model: str, ratio: float) -> dict[str, Any]:
    names = ("analysis", "torch-pruning analysis", "cut", "torch-pruning prune", "onnxsim")
    seconds = {name: {"median": 0.5, "runs": 3} for name in names}
    ratios = {"analysis": ratio, "cut": 1.0}
    return {"kind": "speed", "model": model, "exporter": "dynamo", "nodes": 7, "seconds": seconds, "ratio": ratios}


def test_a_ratio_is_the_median_of_paired_ratios() -> None:
    mine = Times(clock=(1.0, 2.0, 4.0), processor=(1.0, 1.0, 1.0))
    other = Times(clock=(2.0, 8.0, 12.0), processor=(1.0, 1.0, 1.0))
    assert mine.ratio(other) == 3.0
    assert mine.cpu_ratio(other) == 1.0
    assert mine.to_dict() == {"median": 2.0, "least": 1.0, "cpu": 1.0, "runs": 3}


def test_contenders_run_in_turn_after_a_warm_up_each_on_what_is_made_ready_for_it() -> None:
    calls: list[str] = []

    contenders = {name: (lambda: "ready", lambda ready, name=name: calls.append(name + ready)) for name in ("a", "b")}
    times = in_turn(contenders, 3)
    assert sorted(calls) == ["aready"] * 4 + ["bready"] * 4
    assert [sorted(calls[i : i + 2]) for i in range(0, 8, 2)] == [["aready", "bready"]] * 4
    assert {name: len(found.clock) for name, found in times.items()} == {"a": 3, "b": 3}


def test_the_last_record_of_a_key_counts(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    records.keep([speed("a", 1.0), speed("b", 2.0)], file)
    records.keep([speed("a", 3.0)], file)
    assert [(r["model"], r["ratio"]["analysis"]) for r in records.read(file)] == [("a", 3.0), ("b", 2.0)]


def test_circumstances_name_versions_and_the_machine() -> None:
    around = records.circumstances()
    assert set(around) == set(AROUND)
    assert around["versions"]["onnx"] == onnx.__version__


@pytest.mark.parametrize("operators", [40, 200])
def test_chains_are_valid_and_about_as_long_as_asked(operators: int) -> None:
    model = growth.network(operators)
    onnx.checker.check_model(model, full_check=True)
    assert abs(len(model.graph.node) - operators) <= 8


def test_exponents_are_those_of_powers() -> None:
    rows = [{"operators": n, "seconds": 3e-4 * n, "megabytes": 1e-6 * n**2} for n in (10, 100, 1000)]
    assert growth.exponents(rows) == pytest.approx({"seconds": 1.0, "megabytes": 2.0})


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
def test_growth_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "chain.onnx"
    onnx.save(growth.network(60), file)
    (row,) = in_own_process("benchmarks.peers.growth", str(file), "prune", "1")
    assert row["kind"] == "growth"
    assert row["groups"] > 0
    assert row["seconds"] > 0
    assert row["megabytes"] >= 0


def test_the_page_has_a_section_for_each_kind_with_means_and_failures() -> None:
    rows = [
        {"kind": "growth", "mode": "prune", "operators": n, "seconds": n / 1e3, "megabytes": n / 10} for n in (10, 100)
    ]
    ours = {"torchscript": {"params": 0.271, "macs": 0.25, "difference": 4e-7}}
    kept = [
        {"kind": "depth", "model": "a", "ours": ours, "torch-pruning": {"params": 0.272, "macs": 0.26}},
        {"kind": "depth", "model": "b", "ours": ours, "torch-pruning": {"refused": "ValueError: no"}},
    ]
    models = {
        "full": {"params": 1.0, "milliseconds": 10.0, "ratio": 1.0},
        "compact": {"params": 0.271, "milliseconds": 4.0, "ratio": 0.4},
        "torch-pruning": {"refused": "ValueError: no"},
    }
    slow = {"kind": "latency", "model": "a", "threads": 1, "models": models}
    text = page.document([r | AROUND for r in (speed("a", 2.0), speed("b", 8.0), *rows, *kept, slow)])
    for line in (
        "Analysis, dynamo: 4.00 times as fast in the geometric mean, at least 2.00 times.",
        "Exponents: prune: time 1.00, memory 1.00.",
        "| a, torchscript | 27.1 % | 25.0 % | 4e-07 | 27.2 % | 26.0 % |",
        "| b, torchscript | 27.1 % | 25.0 % | 4e-07 | fails |  |",
        "b: ValueError: no",
        "| a | 1 | 10.0 | 4.0 (0.40), keeps 27.1 % | fails |",
    ):
        assert line in text
