"""The results of experiments as a page of tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx_asgnas.config import TrainConfig
from onnx_asgnas.experiments.recipe import H2SPG, PLAIN, SCRATCH, Experiment, Sweep
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
_HEAD = ("", "seeds", "test accuracy", "parameters", "MACs", "removed", "latency", "wall-clock, s")
_OVERVIEW = (PLAIN, H2SPG, "random", "magnitude", SCRATCH)
"""The methods that the table of all experiments shows."""

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
    tables = [*_overview(shown, found), *_compared(shown, found)]
    return "\n".join([_INTRODUCTION, *_whole(shown, found), *tables, *_drawn(pictures.get("", ())), *sections])


def _overview(experiments: Sequence[Experiment], found: Mapping[str, Sequence[Line]]) -> list[str]:
    """Accuracy by experiment and method, of the experiments with a search."""
    rows = []
    for experiment in experiments:
        runs = _by_method(experiment, found[experiment.name])
        if H2SPG in runs:
            full = runs[PLAIN] = _plain_runs(experiment, experiments, found)
            part = mean(run["macs"] for run in runs[H2SPG]) / full[0]["macs"] if full else None
            kept = "–" if part is None else f"{100 * part:.0f} %"
            cells = [_accuracy(runs.get(method, ()), usual=len(experiment.seeds)) for method in _OVERVIEW]
            cells[1] = f"**{cells[1]}**"
            rows.append(_cells(experiment.title, kept, *cells))
    if not rows:
        return []
    titles = [plain_title(method).partition(",")[0] for method in _OVERVIEW]
    return ["## At a glance", "", *_table(("", "MACs kept", *titles)), *rows, ""]


def _plain_runs(
    experiment: Experiment, experiments: Sequence[Experiment], found: Mapping[str, Sequence[Line]]
) -> list[Line]:
    """The plain runs of an experiment, else those of one that trains the same full network in the same way."""

    def training(one: Experiment) -> tuple[str, TrainConfig]:
        return one.model, one.config_of(PLAIN)

    alike = [one for one in experiments if PLAIN in one.methods and training(one) == training(experiment)]
    runs = (_by_method(one, found[one.name]).get(PLAIN) for one in sorted(alike, key=lambda one: one != experiment))
    return next(filter(None, runs), [])


def _compared(experiments: Sequence[Experiment], found: Mapping[str, Sequence[Line]]) -> list[str]:
    """What several experiments vary, side by side, the best on the mean first."""
    lines: list[str] = []
    for key in dict.fromkeys(key for experiment in experiments for key in experiment.sweeps):
        both = [experiment for experiment in experiments if key in experiment.sweeps]
        first = both[0].sweeps[key]
        if len(both) < 2 or any(experiment.sweeps[key].values != first.values for experiment in both):
            continue
        rows = []
        points = [points_of(e, e.sweeps[key], _by_method(e, found[e.name])) for e in both]
        for value in first.values:
            runs = [dict(each).get(value, ()) for each in points]
            means = [mean(right) for right in map(accuracies, runs) if right]
            if len(means) == len(both):
                default = all(run["method"] == H2SPG for each in runs for run in each)
                cells = [_accuracy(each, usual=len(e.seeds)) for each, e in zip(runs, both, strict=True)]
                title = f"**{value}**, the default" if default else f"{value}"
                rows.append((mean(means), _cells(title, *cells, f"{mean(means):.2f}")))
        if rows:
            ordered = [row for _, row in sorted(rows, key=lambda row: -row[0])]
            head = _table((first.option, *(e.title for e in both), "mean"))
            lines += [f"## {first.title}, side by side", "", *head, *ordered, ""]
    return lines


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
    by_method = _by_method(experiment, lines)
    settings = {"epochs": 10, **experiment.options}
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    addresses = dict(pictures)
    varied = []
    for sweep in experiment.sweeps.values():
        drawn = [(sweep.title, addresses.pop(sweep.title))] if sweep.title in addresses else []
        varied += _varied(experiment, sweep, by_method, drawn)
    return "\n".join(
        [
            f"## {experiment.title}",
            "",
            f"`onnx-asgnas experiment {experiment.name}`: `models:{experiment.model}`, `{experiment.data}`, "
            f"{experiment.target}; {told}.",
            "",
            *_table(_HEAD),
            *(_row(method, by_method[method]) for method in experiment.methods if method in by_method),
            "",
            *_verdicts(by_method),
            *_changed(experiment, lines),
            "",
            *varied,
            *_drawn(tuple(addresses.items())),
        ]
    )


def _changed(experiment: Experiment, lines: Sequence[Line]) -> list[str]:
    """What was otherwise when the runs were made."""
    differ = [changed for line in lines if (changed := experiment.changed_since(line))]
    if not differ:
        return []
    then = ", ".join(sorted({f"{name} {value}" for changed in differ for name, value in changed.items()}))
    return [f"{len(differ)} of these runs had another option then ({then}); the command does them anew."]


def _by_method(experiment: Experiment, lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The finished runs of an experiment by method, in its order."""
    found = {m: [line for line in lines if line.get("method") == m] for m in experiment.all_methods}
    return {method: runs for method, runs in found.items() if runs}


def _varied(
    experiment: Experiment, sweep: Sweep, runs: Mapping[str, Sequence[Line]], drawn: Sequence[tuple[str, str]]
) -> list[str]:
    """What one thing that is varied leads to: a column for each value, and the picture."""
    points = points_of(experiment, sweep, runs)
    if not points:
        return []
    sizes = (f"{mean(run['macs'] for run in found) / 1e6:.2f} M" for _, found in points)
    return [
        f"{sweep.title}:",
        "",
        *_table((sweep.option, *(str(value) for value, _ in points))),
        _cells("test accuracy", *(_accuracy(found, usual=len(experiment.seeds)) for _, found in points)),
        _cells("MACs", *sizes),
        "",
        *(line for _, address in drawn for line in (f"![{sweep.title}]({address})", "")),
    ]


def points_of(
    experiment: Experiment, sweep: Sweep, runs: Mapping[str, Sequence[Line]]
) -> list[tuple[Any, Sequence[Line]]]:
    """The points of a sweep that have been run, each with its runs.

    Of the seeds that at least two points have: that one of them has more says nothing about what is varied.
    """
    methods = [experiment.method_at(sweep, point) for point in sweep.points]
    by_number = sorted((experiment.seeds_of(method) for method in dict.fromkeys(methods)), key=len)
    shared = by_number[-2:][0]
    points = []
    for value, method in zip(sweep.values, methods, strict=True):
        found = [run for run in runs.get(method, ()) if run["seed"] in shared]
        points.append((value, found))
    return [(value, found) for value, found in points if found]


def _table(head: Sequence[str]) -> list[str]:
    return [_cells(*head), "|" + "---|" * len(head)]


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _accuracy(runs: Iterable[Line], usual: int | None = None) -> str:
    """Mean test accuracy in percent, with its error; in brackets how many runs it is of, where that is not `usual`."""
    right = accuracies(runs)
    if not right:
        return "–"
    return with_error(right) + (f" ({len(right)})" if usual not in (None, len(right)) else "")


def _drawn(pictures: Sequence[tuple[str, str]]) -> list[str]:
    return [part for title, address in pictures for part in (f"{title}:", "", f"![{title}]({address})", "")]


def _row(method: str, runs: Sequence[Line]) -> str:
    ratios = [run["latency_ratio"] for run in runs if run.get("latency_ratio")]
    return _cells(
        TITLES.get(method, method.replace("_", " ")),
        str(len(runs)),
        _accuracy(runs),
        f"{mean(run['params'] for run in runs):,.0f}",
        f"{mean(run['macs'] for run in runs) / 1e6:.2f} M",
        _removed([run["chosen"] for run in runs if run.get("chosen")]),
        f"{100 * mean(ratios):.0f} %" if ratios else "–",
        f"{mean(run.get('wall', run['seconds']) for run in runs):.0f}",
    )


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
    return [100 * run["accuracy"] for run in runs if _is_judged(run)]


def plain_title(method: str) -> str:
    """What a method is called where there is no Markdown."""
    return TITLES.get(method, method.replace("_", " ")).replace("**", "")


def _removed(chosen: Iterable[Sequence[str]]) -> str:
    """What the runs removed: by name where that is few, and once where several chose the same."""
    told = Counter(", ".join(sorted(each)) if len(each) <= 4 else f"{len(each)} structures" for each in chosen)
    return "; ".join(f"{what} ({times} times)" if times > 1 else what for what, times in told.items()) or "–"


def _verdicts(by_method: Mapping[str, Sequence[Line]]) -> list[str]:
    """What the compact models' checks found, and H2SPG against each other method."""
    checks = [
        run["verified"]["max_relative_difference"] for runs in by_method.values() for run in runs if "verified" in run
    ]
    found = []
    if checks:
        which = f", {len(checks)} runs: the largest" if len(checks) > 1 else ": the"
        found.append(f"Compact against zeroed full{which} relative difference is {max(checks):.1e}.")
    found += filter(None, [_latency(H2SPG, by_method.get(H2SPG, ()))])
    against = [
        f"{with_error(differences, signed=True)} against {method}"
        for method, runs in by_method.items()
        if method != H2SPG and "=" not in method and (differences := _differences(by_method.get(H2SPG, ()), runs))
    ]
    if against:
        found.append(f"H2SPG in points, seed by seed: {', '.join(against)}.")
    return found


def _differences(runs: Iterable[Line], others: Iterable[Line]) -> list[float]:
    """How much better in points the first runs are than the others, for each seed that both have."""
    left, right = ({run["seed"]: 100 * run["accuracy"] for run in each if _is_judged(run)} for each in (runs, others))
    return [left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())]


def _is_judged(run: Line) -> bool:
    return run.get("accuracy") is not None


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    return statistics.fmean(values)


def with_error(values: Sequence[float], *, signed: bool = False) -> str:
    """The mean with two digits, and its standard error where there are several values."""
    told = f"{mean(values):+.2f}" if signed else f"{mean(values):.2f}"
    return f"{told} ± {standard_error(values):.2f}" if len(values) > 1 else told


def standard_error(values: Iterable[float]) -> float:
    """The standard error of a mean; NaN for a single value."""
    found = list(values)
    return statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan


_INTRODUCTION = """# Results

Written by `onnx-asgnas results docs/results.jsonl -o docs/results.md`; the command above each table does its runs again
(`--estimate` says how long that takes, `--results docs/results.jsonl` keeps them here).

Accuracy is that of the last epoch on the test images, in percent, mean ± standard error over the seeds; a number in
brackets says how many seeds where a row or column has others. Latency is the compact network's as a part of the full
one's, in onnxruntime, batch 1, paired medians. Wall-clock is all of a run.
"""
