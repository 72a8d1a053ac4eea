"""A run as one page, report.html; or what pruning came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from onnx_asgnas.report import numbers
from onnx_asgnas.report.comparison import comparison_rows
from onnx_asgnas.report.curves import curves_of
from onnx_asgnas.report.fates import Fate
from onnx_asgnas.report.finite import finite
from onnx_asgnas.report.operator_times import OperatorTime, by_type
from onnx_asgnas.report.page import page_of
from onnx_asgnas.report.run_report import NetworkReport
from onnx_asgnas.report.space_data import space_data

_SLOWEST = 15
"""So many operators the list of the slowest has."""


def run_page(report: NetworkReport) -> str:
    """The page of a run; raises SpaceError if its space has no model."""
    return page_of(run_data(report), "run")


def run_data(report: NetworkReport) -> dict[str, Any]:
    """All that the page shows: the data of the search space, and under `run` what became of everything in it."""
    data = space_data(report.space, report.name)
    fates = report.fates()
    curves = curves_of(report.events, report.space)
    families = _families(report)
    run = {
        "told": report.told,
        "cards": _cards(report),
        "compared": comparison_rows(report.comparison.to_dict()),
        "passed": report.verification.passed,
        "verdict": _verdict(report),
        "trained": _trained(report),
        "normed": _normed(curves),
        "curves": curves,
        "zero": list(report.chosen),
        "operators": _operators(report, fates, data, families),
        "structures": _structures(report, fates, curves),
        "families": families,
        "times": _times(report),
        "settings": _settings(report),
        "versions": list(report.versions.items()),
    }
    return {**data, "run": finite(run)}


def _cards(report: NetworkReport) -> list[tuple[str, str, float | None]]:
    """The figures that matter most: the figure, what it is, and the part that is kept, where it is one."""
    kept, comparison = report.comparison.kept, report.comparison
    cards: list[tuple[str, str, float | None]] = [
        (numbers.percent(kept.params), "of the parameters kept", kept.params),
        (numbers.percent(kept.macs), "of the multiply-accumulates kept", kept.macs),
    ]
    if comparison.latency_ratio is not None:
        cards.append((numbers.percent(comparison.latency_ratio), "of the latency kept", comparison.latency_ratio))
    if comparison.compact.accuracy is not None:
        cards.append((numbers.percent(comparison.compact.accuracy), "accuracy on the test data", None))
    if report.seconds is not None:
        cards.append((numbers.duration(report.seconds), "training", None))
    return cards


def _verdict(report: NetworkReport) -> str:
    found = report.verification
    if not found.passed:
        return f"The compact model does not give what the full one gives: {found.explanation}."
    largest = f"{found.max_relative_difference:.1e}" if found.max_relative_difference else "exactly 0"
    moved = "" if found.moved is None else f" What was removed moves the output by {found.moved:.1e}."
    return (
        f"Verified in onnxruntime: full and compact model differ by {largest} of the largest output, "
        f"{found.tolerance:.0e} is allowed.{moved} The full model has its removed groups at zero."
    )


def _trained(report: NetworkReport) -> str:
    phases = [
        f"{phase} {epochs[0]}" if len(epochs) == 1 else f"{phase} {epochs[0]} to {epochs[-1]}"
        for phase, same in groupby(report.history, key=lambda row: str(row["phase"]))
        for epochs in ([row["epoch"] for row in same],)
    ]
    return (
        f"{len(report.history)} epochs in {numbers.duration(report.seconds)}; phase at the end of each epoch: "
        f"{', '.join(phases)}."
    )


def _normed(curves: Mapping[str, Any]) -> str:
    norms = curves["norms"]
    if norms is None:
        return ""
    channels = len(norms["groups"]) - norms["structures"]
    what = [f"{norms['structures']} structures"] * bool(norms["structures"]) + [f"{channels} channels"] * bool(channels)
    return (
        f"{' and '.join(what)}; in pink what went to zero, in grey what is gone with it. Point at a line for its name; "
        "click leads to the structure."
    )


def _families(report: NetworkReport) -> list[int | None]:
    """How many channels of each family stay; None where none may leave."""
    fates = iter(report.channels)
    families = report.space.channel_families()
    if not report.channels:
        return [None] * len(families)
    return [next(fates).kept if family.free else None for family in families]


def _operators(
    report: NetworkReport, fates: Sequence[Fate], data: Mapping[str, Any], families: Sequence[int | None]
) -> list[str]:
    """The state of every operator: removed, narrower, needed, or kept."""
    graph = report.space.parts.graph
    number = {name: at for at, name in enumerate(data["operators"]["name"])}
    states = ["kept"] * len(data["operators"]["name"])
    for family, kept in zip(data["families"], families, strict=True):
        if kept is not None and kept < family["channels"]:
            for _, _, kind, operators in family["members"]:
                for operator in operators if kind != "cut" else ():
                    states[operator] = "narrower"
    for fate in fates:
        if fate.chosen and not fate.removed:
            for name in fate.structure.segment:
                states[number[name]] = "needed"
    gone = {name for fate in fates if fate.removed for name in fate.structure.region}
    if report.left:
        gone |= {node.name for node in graph.nodes if report.left.isdisjoint(node.output)}
    for name in gone:
        states[number[name]] = "removed"
    return states


def _structures(report: NetworkReport, fates: Sequence[Fate], curves: Mapping[str, Any]) -> list[dict[str, Any]]:
    ranks = {tensor: at for at, tensor in enumerate(report.chosen)}
    begins = {phase["phase"]: phase["step"] for phase in curves["phases"]}
    moment = _moments(curves)
    zero = _zero_steps(curves)
    return [
        {
            "state": "removed" if fate.removed else "needed" if fate.chosen else "kept",
            "reason": fate.reason,
            "redundancy": fate.redundancy,
            "rank": ranks.get(fate.structure.tensor),
            "chosen_at": moment(begins.get("hybrid", begins.get("converge"))) if fate.chosen else None,
            "zero_at": moment(zero.get(fate.structure.tensor)) if fate.chosen else None,
        }
        for fate in fates
    ]


def _moments(curves: Mapping[str, Any]) -> Any:
    """What gives a step with its epoch, counted from 0."""
    total, epochs = curves["total_steps"], curves["total_epochs"]

    def moment(step: int | None) -> dict[str, float] | None:
        return None if step is None or not total else {"step": step, "epoch": epochs * step / total}

    return moment


def _zero_steps(curves: Mapping[str, Any]) -> dict[str, int]:
    """The first sample at which each group is at zero, for those that ever are."""
    norms = curves["norms"]
    if norms is None:
        return {}
    return {
        name: norms["step"][values.index(0.0)]
        for name, values in zip(norms["groups"], norms["values"], strict=True)
        if 0.0 in values
    }


def _times(report: NetworkReport) -> dict[str, Any] | None:
    """Microseconds by operator type, and of the slowest operators of the full model."""
    if report.operator_times is None:
        return None
    full, compact = report.operator_times
    before, after = by_type(full), by_type(compact)
    types = [[kind, before.get(kind, (0, 0.0)), after.get(kind, (0, 0.0))] for kind in {**before, **after}]
    left = {entry.name: entry.microseconds for entry in compact}
    slowest = sorted(full, key=lambda entry: -entry.microseconds)[:_SLOWEST]
    totals = [numbers.milliseconds(_total(times) / 1e3) for times in (full, compact)]
    return {
        "told": (
            f"onnxruntime's profile of one run, batch 1: {len(full)} operators of the optimised full model take "
            f"{totals[0]}, {len(compact)} of the compact one {totals[1]}. Profiling costs time, so this is more than "
            "the latency."
        ),
        "types": types,
        "most": max((total for kinds in (before, after) for _, total in kinds.values()), default=0.0),
        "slowest": [[entry.name, entry.op_type, entry.microseconds, left.get(entry.name)] for entry in slowest],
    }


def _total(times: Sequence[OperatorTime]) -> float:
    return sum(entry.microseconds for entry in times)


def _settings(report: NetworkReport) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _value(value)) for name, value in report.settings.items()]


def _value(value: object) -> str:
    if value is None or value in ((), ""):
        return numbers.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
