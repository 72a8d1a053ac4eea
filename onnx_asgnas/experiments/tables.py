"""The results of experiments as a page of tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx_asgnas.experiments.recipe import H2SPG, PLAIN, SCRATCH, Experiment

TITLES: Mapping[str, str] = {
    PLAIN: "full network, trained plainly",
    H2SPG: "**H2SPG**",
    "random": "a random valid choice, otherwise the same",
    "magnitude": "one-shot magnitude, otherwise the same",
    "paper": "the paper's score, otherwise the same",
    "hesso": "HESSO",
    "dhspg": "DHSPG, without the hierarchy",
    SCRATCH: "H2SPG's compact network from scratch",
}
_HEAD = ("", "test accuracy", "parameters", "MACs", "removed", "latency", "seconds")

Line = Mapping[str, Any]


def page(experiments: Iterable[Experiment], lines: Iterable[Line]) -> str:
    """Markdown with a table for each experiment of which there is a finished run."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(str(line.get("experiment", "")), []).append(line)
    sections = [_section(e, found[e.name]) for e in experiments if e.name in found]
    return "\n".join([_INTRODUCTION, *sections])


def _section(experiment: Experiment, lines: Sequence[Line]) -> str:
    by_method = {m: [line for line in lines if line.get("method") == m] for m in experiment.methods}
    by_method = {method: runs for method, runs in by_method.items() if runs}
    rows = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    rows += [_row(method, runs) for method, runs in by_method.items()]
    settings = {"epochs": 10, **experiment.options}
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    return "\n".join(
        [
            f"## {experiment.title}",
            "",
            f"`onnx-asgnas experiment {experiment.name}`: `models:{experiment.model}`, `{experiment.data}`, "
            f"{experiment.target}; {told}.",
            "",
            *rows,
            "",
            *_verdicts(by_method),
            "",
        ]
    )


def _row(method: str, runs: Sequence[Line]) -> str:
    accuracies = [100 * run["accuracy"] for run in runs if run.get("accuracy") is not None]
    spread = f" ± {standard_error(accuracies):.2f}" if len(accuracies) > 1 else ""
    accuracy = f"{mean(accuracies):.2f}{spread}" if accuracies else "–"
    ratios = [run["latency_ratio"] for run in runs if run.get("latency_ratio")]
    cells = [
        TITLES.get(method, method),
        accuracy,
        f"{mean(run['params'] for run in runs):,.0f}",
        f"{mean(run['macs'] for run in runs) / 1e6:.2f} M",
        "; ".join(_removed(run["chosen"]) for run in runs if run.get("chosen")) or "–",
        f"{100 * mean(ratios):.0f} %" if ratios else "–",
        f"{mean(run['seconds'] for run in runs):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _removed(chosen: Sequence[str]) -> str:
    return ", ".join(chosen) if len(chosen) <= 4 else f"{len(chosen)} structures"


def _verdicts(by_method: Mapping[str, Sequence[Line]]) -> list[str]:
    """What the compact models' checks found, and H2SPG against each other method."""
    checks = [
        run["verified"]["max_relative_difference"] for runs in by_method.values() for run in runs if "verified" in run
    ]
    found = []
    if checks:
        found.append(
            f"Compact against zeroed full, {len(checks)} runs: the largest relative difference is {max(checks):.1e}."
        )
    means = {m: mean(100 * run["accuracy"] for run in runs) for m, runs in by_method.items() if _judged(runs)}
    if H2SPG in means and len(means) > 1:
        against = ", ".join(f"{means[H2SPG] - value:+.2f} against {m}" for m, value in means.items() if m != H2SPG)
        found.append(f"H2SPG in points: {against}.")
    return found


def _judged(runs: Sequence[Line]) -> bool:
    return all(run.get("accuracy") is not None for run in runs)


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    return statistics.fmean(values)


def standard_error(values: Iterable[float]) -> float:
    """The standard error of a mean; NaN for a single value."""
    found = list(values)
    return statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan


_INTRODUCTION = """# Results

Written by `onnx-asgnas results docs/results.jsonl -o docs/results.md`; the command above each table does its runs again
(`--estimate` says how long that takes, `--results docs/results.jsonl` keeps them here).

Accuracy is that of the last epoch on the test images, in percent, mean ± standard error over the seeds. Latency is the
compact network's as a part of the full one's, in onnxruntime, batch 1, paired. The networks are small because two cores
train them.
"""
