"""The results of experiments as pictures: accuracy over size, what is varied, norms of groups, networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_asgnas import models
from onnx_asgnas.errors import InputError
from onnx_asgnas.experiments.recipe import H2SPG, PLAIN, Experiment, Options, Sweep
from onnx_asgnas.experiments.tables import Line, accuracies, mean, plain_title, points_of, standard_error
from onnx_asgnas.report.network_picture import draw_network
from onnx_asgnas.report.pictures import axes_of, new_figure, save_figure
from onnx_asgnas.space import analyze
from onnx_asgnas.specs import parse_spec

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#666666")
_MARKS = "os^DvPX*<>hdp"
_SOFT = "#8b94a3"

Lines = Mapping[str, Sequence[Line]]
"""The finished runs of an experiment by method."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and what it shows."""

    title: str
    file: Path


def draw_all(experiments: Iterable[Experiment], lines: Iterable[Line], folder: Path) -> dict[str, list[Picture]]:
    """Draw what the finished runs allow, into a folder; the pictures by experiment, "" for those of several.

    Raises PackageError without matplotlib.
    """
    listed = list(lines)
    found: dict[str, list[Picture]] = {"": []}
    done: list[tuple[Experiment, Lines]] = []
    for experiment in experiments:
        by_method = {
            method: [line for line in listed if (line["experiment"], line["method"]) == (experiment.name, method)]
            for method in experiment.all_methods
        }
        by_method = {method: runs for method, runs in by_method.items() if runs}
        if by_method:
            done.append((experiment, by_method))
            found[experiment.name] = list(_of_one(experiment, by_method, folder))
    for data in dict.fromkeys(experiment.data for experiment, _ in done):
        same = [(experiment, runs) for experiment, runs in done if experiment.data == data]
        found[""] += _sizes(data, same, folder)
    return found


def _of_one(experiment: Experiment, runs: Lines, folder: Path) -> Iterable[Picture]:
    name = experiment.name.replace("/", "-")
    for key, sweep in experiment.sweeps.items():
        yield from _sweep(experiment, sweep, runs, folder / f"{name}-{key}.svg")
    first = min(runs.get(H2SPG, ()), key=lambda line: line["seed"], default=None)
    if first is not None:
        yield from _norms(first, folder / f"{name}-norms.svg")
        yield from _network(experiment, first, folder / f"{name}-network.svg")


def _sizes(data: str, done: Sequence[tuple[Experiment, Lines]], folder: Path) -> Iterable[Picture]:
    """Accuracy over parameters and over multiply-accumulates, a colour for each network, a sign for each method.

    Without the networks that are cut through: they guess.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    methods = list(dict.fromkeys(m for experiment, runs in done for m in experiment.methods if m in runs))
    figure = new_figure(9, 4)
    left, right = axes_of(figure, 1, 2, sharey=True)
    for axes, key, label in ((left, "params", "parameters"), (right, "macs", "multiply-accumulates")):
        for (_, runs), colour in zip(done, _cycle(_COLOURS), strict=False):
            for method, mark in zip(methods, _cycle(_MARKS), strict=False):
                whole = [line for line in runs.get(method, ()) if line.get("valid") is not False]
                values = accuracies(whole)
                if values:
                    sizes = [line[key] for line in whole]
                    axes.errorbar(mean(sizes), mean(values), **_bar(values), color=colour, marker=mark, capsize=2)
        axes.set(xlabel=label, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.xaxis.set_minor_formatter(NullFormatter())
    left.set_ylabel("test accuracy, %")
    _legend(figure, [e.title for e, _ in done], methods)
    file = folder / f"sizes-{_file_name(data)}.svg"
    save_figure(figure, file)
    yield Picture(f"Accuracy over size, `{data}`", file)


def _legend(figure: Any, networks: Sequence[str], methods: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    signs = [
        Line2D([], [], color=colour, marker="s", linestyle="", label=name)
        for name, colour in zip(networks, _cycle(_COLOURS), strict=False)
    ]
    signs += [
        Line2D([], [], color="#444444", marker=mark, linestyle="", label=plain_title(method))
        for method, mark in zip(methods, _cycle(_MARKS), strict=False)
    ]
    figure.legend(handles=signs, loc="outside right upper", fontsize=8, frameon=False)


def _sweep(experiment: Experiment, sweep: Sweep, runs: Lines, file: Path) -> Iterable[Picture]:
    """Mean accuracy, with standard errors, over what is varied; a line where the full network stands."""
    points = [(value, accuracies(found)) for value, found in points_of(experiment, sweep, runs)]
    if len(points) < 2:
        return
    figure = new_figure(5.5, 3.2)
    axes = axes_of(figure)
    numeric = all(isinstance(value, int | float) for value, _ in points)
    places = [value if numeric else at for at, (value, _) in enumerate(points)]
    for place, (_, found) in zip(places, points, strict=True):
        axes.plot([place] * len(found), found, ".", color=_SOFT, markersize=4)
    bars = [standard_error(found) if len(found) > 1 else 0.0 for _, found in points]
    style = {"color": _COLOURS[0], "marker": "o", "capsize": 3, "linestyle": "-" if numeric else ""}
    axes.errorbar(places, [mean(found) for _, found in points], yerr=bars, **style)
    full = accuracies(runs.get(PLAIN, ()))
    if full:
        axes.axhline(mean(full), color=_SOFT, linestyle="--", linewidth=1)
        axes.annotate("full, plain", (1, mean(full)), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    if all(isinstance(value, int) for value, _ in points):
        axes.set_xticks(places)
    if not numeric:
        axes.set_xticks(places, [_short(str(value)) for value, _ in points], rotation=30, ha="right")
    axes.set(xlabel=sweep.option.replace("_", " "), ylabel="test accuracy, %")
    save_figure(figure, file)
    yield Picture(sweep.title, file)


def _norms(line: Line, file: Path) -> Iterable[Picture]:
    """The norms of the groups over the run, with the phases."""
    norms = line.get("norms")
    if not norms:
        return
    figure = new_figure(6.5, 3.2)
    axes = axes_of(figure)
    chosen = set(line["chosen"])
    ends = [phase["step"] for phase in norms["phases"][1:]] + [norms["total"]]
    for at, (phase, end) in enumerate(zip(norms["phases"], ends, strict=True)):
        axes.axvspan(phase["step"], end, color="black", alpha=0.07 * (at % 2), linewidth=0)
        axes.annotate(
            phase["phase"],
            (phase["step"], 1.01),
            xycoords=("data", "axes fraction"),
            rotation=30 if end - phase["step"] < norms["total"] / 5 else 0,
            fontsize=8,
        )
    for (name, values), colour in zip(
        zip(norms["groups"], norms["values"], strict=True), _cycle(_COLOURS), strict=False
    ):
        style = {"linestyle": "--", "linewidth": 2} if name in chosen else {}
        axes.plot(norms["step"], values, color=colour, label=f"{name}, chosen" if name in chosen else name, **style)
    axes.set(xlabel="step", ylabel="‖x‖", xlim=(0, norms["total"]), ylim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    save_figure(figure, file)
    yield Picture(f"Norms of the groups, seed {line['seed']}", file)


def _network(experiment: Experiment, line: Line, file: Path) -> Iterable[Picture]:
    """The network, with what H2SPG removed in grey."""
    spec = parse_spec(experiment.model, InputError)
    if experiment.options.get("mode", "erase") != "erase" or experiment.options.get("gates"):
        return
    if draw_network(analyze(models.build(spec.name, **spec.arguments)), set(line["chosen"]), file):
        yield Picture(f"The network; in grey what was removed, seed {line['seed']}", file)


def _bar(values: Sequence[float]) -> Options:
    return {"yerr": standard_error(values)} if len(values) > 1 else {}


def _short(text: str) -> str:
    """A score with weights, shorter: cosine:0.25,mean-magnitude:0.75 as cosine 0.25."""
    return text.partition(",")[0].replace(":", " ")


def _file_name(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text)


def _cycle(items: Sequence[str]) -> Iterable[str]:
    while True:
        yield from items
