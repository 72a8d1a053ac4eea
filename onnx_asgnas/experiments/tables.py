"""The results of experiments as a page of tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx_asgnas.experiments.recipe import H2SPG, PLAIN, SCRATCH, Experiment
from onnx_asgnas.report.numbers import duration, milliseconds

TITLES: Mapping[str, str] = {
    PLAIN: "full network, trained plainly",
    H2SPG: "**H2SPG**",
    "random": "a random valid choice, otherwise the same",
    "magnitude": "one-shot magnitude, otherwise the same",
    "paper": "the paper's score, otherwise the same",
    "hesso": "HESSO",
    "dhspg": "DHSPG, without the hierarchy",
    "joint": "H2SPG, structures and channels (joint), half of the MACs",
    SCRATCH: "H2SPG's compact network from scratch",
}
_HEAD = ("", "test accuracy", "parameters", "MACs", "removed", "latency", "seconds")

Line = Mapping[str, Any]


def page(
    experiments: Iterable[Experiment], lines: Iterable[Line], pictures: Mapping[str, Sequence[tuple[str, str]]] = {}
) -> str:
    """Markdown with a table for each experiment of which there is a finished run.

    `pictures` are titles and addresses by experiment, "" for those of several.
    """
    listed = list(lines)
    found: dict[str, list[Line]] = {}
    for line in listed:
        found.setdefault(str(line.get("experiment", "")), []).append(line)
    shown = [e for e in experiments if e.name in found]
    sections = [_section(e, found[e.name], pictures.get(e.name, ())) for e in shown]
    return "\n".join([_INTRODUCTION, *_whole(shown, found), *_drawn(pictures.get("", ())), *sections])


def _whole(experiments: Sequence[Experiment], found: Mapping[str, Sequence[Line]]) -> list[str]:
    """How long all runs took, and what their checks found."""
    lines = [line for e in experiments for line in found[e.name]]
    if not lines:
        return []
    seconds = sum(line.get("wall", line["seconds"]) for line in lines)
    told = f"{len(lines)} runs, which took {duration(seconds)} one after another."
    longest = max(lines, key=lambda line: line.get("wall", line["seconds"]))
    told += f" The longest, {longest['name']}, took {duration(longest.get('wall', longest['seconds']))}."
    return [told, *_validity(lines), ""]


def _validity(lines: Sequence[Line]) -> list[str]:
    """How often a network was valid: of DHSPG, of the other methods, and as chosen without asking the hierarchy."""
    known = [line for line in lines if line.get("valid") is not None]
    free = [line for line in known if line["method"] == "dhspg"]
    held = [line for line in known if line["method"] != "dhspg"]
    unchecked = [line["valid_unchecked"] for line in held if line.get("valid_unchecked") is not None]
    told = []
    if held:
        told.append(f"With the hierarchy {sum(line['valid'] for line in held)} of {len(held)} chosen sets are valid")
    if free:
        told.append(f"without it (DHSPG) {sum(line['valid'] for line in free)} of {len(free)}")
    if unchecked:
        told.append(
            f"had the {len(unchecked)} runs that go by weights and gradients not asked it, {sum(unchecked)} would be"
        )
    return [f"{'; '.join(told)}."] if told else []


def _section(experiment: Experiment, lines: Sequence[Line], pictures: Sequence[tuple[str, str]]) -> str:
    by_method = {m: [line for line in lines if line.get("method") == m] for m in experiment.all_methods}
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
            *_drawn(pictures),
        ]
    )


def _drawn(pictures: Sequence[tuple[str, str]]) -> list[str]:
    return [part for title, address in pictures for part in (f"{title}:", "", f"![{title}]({address})", "")]


def _row(method: str, runs: Sequence[Line]) -> str:
    right = accuracies(runs)
    spread = f" ± {standard_error(right):.2f}" if len(right) > 1 else ""
    accuracy = f"{mean(right):.2f}{spread}" if right else "–"
    ratios = [run["latency_ratio"] for run in runs if run.get("latency_ratio")]
    cells = [
        TITLES.get(method, method.replace("_", " ")),
        accuracy,
        f"{mean(run['params'] for run in runs):,.0f}",
        f"{mean(run['macs'] for run in runs) / 1e6:.2f} M",
        "; ".join(_removed(run["chosen"]) for run in runs if run.get("chosen")) or "–",
        f"{100 * mean(ratios):.0f} %" if ratios else "–",
        f"{mean(run['seconds'] for run in runs):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _latency(method: str, runs: Iterable[Line]) -> str:
    """Median and 95th percentile of a method's full and compact network, mean over its runs; nothing if unknown."""
    found = [run["latency_ms"] for run in runs if run.get("latency_ms")]
    if not found:
        return ""

    def of(model: str) -> str:
        median, p95 = (mean(latency[model][part] for latency in found) for part in ("median", "p95"))
        return f"{model} {milliseconds(median)} (95th percentile {milliseconds(p95)})"

    return f"Latency of {plain_title(method)}: {of('full')}, {of('compact')}."


def accuracies(runs: Iterable[Line]) -> list[float]:
    """Test accuracies in percent, of the runs that have one."""
    return [100 * run["accuracy"] for run in runs if run.get("accuracy") is not None]


def plain_title(method: str) -> str:
    """What a method is called where there is no Markdown."""
    return TITLES.get(method, method.replace("_", " ")).replace("**", "")


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
    found += filter(None, [_latency(H2SPG, by_method.get(H2SPG, ()))])
    means = {m: mean(accuracies(runs)) for m, runs in by_method.items() if "=" not in m and _judged(runs)}
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
compact network's as a part of the full one's, in onnxruntime, batch 1, paired medians. The networks are small because
two cores train them. Seconds are those of the training.
"""
