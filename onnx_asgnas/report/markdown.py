"""The report for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from onnx_asgnas.report import numbers
from onnx_asgnas.report.channels import kept_rows
from onnx_asgnas.report.comparison import comparison_rows
from onnx_asgnas.report.fates import Fate
from onnx_asgnas.report.run_report import RunReport
from onnx_asgnas.space import SearchSpace

_MOST_ROWS = 40
"""Longer tables are cut: report.json has all."""
_MOST_EPOCHS = 20
"""Of longer trainings so many epochs are shown, evenly spread."""
_MOST_NAMES = 4
"""Longer lists of operators are shortened to their ends."""


def markdown(report: RunReport) -> str:
    """The whole report as one Markdown document."""
    fates = report.fates()
    sections = (
        _summary(report, fates),
        _removed(report, fates),
        _channels(report),
        _kept(report, fates),
        _training(report),
        _verification(report),
        _settings(report),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _summary(report: RunReport, fates: Sequence[Fate]) -> Iterator[str]:
    kept, comparison = report.comparison.kept, report.comparison
    yield f"# {report.name}: full and compact"
    sentence = (
        f"The compact model has {numbers.percent(kept.params)} of the parameters and {numbers.percent(kept.macs)} "
        "of the multiply-accumulates of the full one"
    )
    if report.verification.passed:
        sentence += ", and gives the same output."
    else:
        sentence += ", but **it does not give the same output** (see Verification)."
    before, after = comparison.full.accuracy, comparison.compact.accuracy
    if after is not None:
        sentence += f" Its accuracy on the test data is {numbers.percent(after)}"
        sentence += "." if before is None else f", that of the full one {numbers.percent(before)}."
    yield sentence
    yield _table(*comparison_rows(comparison.to_dict()))
    explained = (
        "Parameters are those that train, multiply-accumulates are for one example. The full model is the trained one, "
        "with the redundant groups at zero."
    )
    if comparison.latency_ratio is not None:
        explained += " Latency is that of one run in onnxruntime, the two models in turn."
    yield explained


def _removed(report: RunReport, fates: Sequence[Fate]) -> Iterator[str]:
    removed = [fate for fate in fates if fate.removed]
    minimal = sum(fate.structure.minimal for fate in removed)
    total = sum(fate.structure.minimal for fate in fates)
    yield "## What was removed"
    if not removed and all(fate.kept == fate.width for fate in report.channels):
        yield f"Nothing: no group is at zero. The target was {report.config.target}."
        return
    if report.config.mode == "prune":
        yield f"Channels, layer by layer. The target was {report.config.target}, the method {report.config.method}."
        return
    larger = len(removed) - minimal
    beside = f", and {larger} larger {_plural('one', larger)} with them" if larger else ""
    gone = f"{minimal} of {total} minimal removal structures are gone{beside}"
    yield f"{gone}. The target was {report.config.target}, the method {report.config.method}."
    header = ("tensor", "segment", "operators in its region", "parameters", "MACs", "redundancy", "why")
    rows = [
        (
            _code(fate.structure.tensor),
            _names(fate.structure.segment),
            str(len(fate.structure.region)),
            numbers.count(fate.structure.params),
            numbers.count(fate.structure.macs),
            _score(fate.redundancy),
            _quoted(fate.reason),
        )
        for fate in removed
    ]
    yield _table(header, *rows[:_MOST_ROWS], left=2) + _more(rows)
    yield (
        "A structure is named by the tensor that a joint loses. Its region is all that only led there; parameters and "
        "multiply-accumulates (MACs) are those of the region, so that nested ones count the same operators."
    )


def _channels(report: RunReport) -> Iterator[str]:
    if not report.channels:
        return
    whole = sum(fate.width for fate in report.channels)
    kept = sum(fate.kept for fate in report.channels)
    yield f"{kept:,} of {whole:,} channels stay, of the layers that may lose some:"
    header = ("layer", "kept", "width", "part", "leave together")
    rows = [
        (
            _code(fate.layer),
            f"{fate.kept:,}",
            f"{fate.width:,}",
            numbers.percent(fate.kept / max(fate.width, 1)),
            f"{max(1, round(fate.width / max(fate.groups, 1)))}",
        )
        for fate in report.channels
    ]
    yield _table(header, *rows[:_MOST_ROWS]) + _more(rows)
    yield (
        "Layers whose outputs are added keep the same channels, and are named by the first of them, also where that "
        "one is gone with a structure. A layer that keeps none is gone. Several channels leave together where they "
        "form a head or the like."
    )


def _kept(report: RunReport, fates: Sequence[Fate]) -> Iterator[str]:
    kept = [fate for fate in fates if not fate.removed]
    yield "## What stays, and why"
    if report.config.mode != "prune":
        inside = {name for fate in fates if fate.structure.erasable for name in fate.structure.region}
        total = len(report.space.graph.nodes) if report.space.graph is not None else len(inside)
        yield (
            f"{total - len(inside)} of {total} operators belong to no erasable structure: every way to an output leads "
            "through them, or nothing that trains can bring them to zero."
        )
    if kept:
        header = ("tensor", "segment", "parameters", "MACs", "redundancy", "why it stays")
        rows = [
            (
                _code(fate.structure.tensor),
                _names(fate.structure.segment),
                numbers.count(fate.structure.params),
                numbers.count(fate.structure.macs),
                _score(fate.redundancy),
                _quoted(fate.reason),
            )
            for fate in kept
        ]
        yield _table(header, *rows[:_MOST_ROWS], left=2) + _more(rows)
    if report.config.mode != "erase":
        yield from _kept_channels(report.space)
    most = report.space.max_removable
    structures = f"{most.structures} {_plural('structure', most.structures)} can certainly go together, "
    yield (
        f"At most {structures if report.config.mode != 'prune' else ''}{numbers.count(most.params)} parameters, "
        f"or {numbers.count(most.macs)} multiply-accumulates{' can go' if report.config.mode == 'prune' else ''}."
    )
    if report.space.unknown:
        names = ", ".join(map(_code, report.space.unknown))
        yield f"Operators that are not known, and stay with all that they touch: {names}."


def _kept_channels(space: SearchSpace) -> Iterator[str]:
    rows = [(_quoted(row.reason), _code(row.example), str(row.count), f"{row.groups:,}") for row in kept_rows(space)]
    if rows:
        yield "Channels that no target could take:"
        yield _table(("why they stay", "channels of", "layers", "channel groups"), *rows[:_MOST_ROWS], left=2) + _more(
            rows
        )


def _training(report: RunReport) -> Iterator[str]:
    yield "## Training"
    if not report.history:
        yield "There is no record of the training."
        return
    phases = [
        f"{phase} {_span([row['epoch'] for row in same])}"
        for phase, same in groupby(report.history, key=lambda row: str(row["phase"]))
    ]
    yield (
        f"{len(report.history)} {_plural('epoch', len(report.history))} in {numbers.duration(report.seconds)}. "
        f"Phase at the end of each epoch: {', '.join(phases)}."
    )
    shown = _spread(report.history, _MOST_EPOCHS)
    figures = list(dict.fromkeys(name for row in report.history for name in row.get("metrics") or ()) or ("top1",))
    tests = ["test accuracy" if name == "top1" else f"test {name}" for name in figures]
    header = ("epoch", "phase", "loss", *tests, "groups at zero", "learning rate", "time")
    rows = [
        (
            str(row["epoch"]),
            str(row["phase"]),
            f"{row['loss']:.4f}",
            *(
                numbers.metric(name, (row.get("metrics") or {"top1": row.get("accuracy")}).get(name))
                for name in figures
            ),
            str(row.get("groups_at_zero", numbers.DASH)),
            f"{row['lr']:.2g}" if row.get("lr") is not None else numbers.DASH,
            numbers.duration(row.get("seconds")),
        )
        for row in shown
    ]
    yield _table(header, *rows, left=0)
    if len(shown) < len(report.history):
        yield f"{len(shown)} of {len(report.history)} epochs are shown; report.json has all."


def _verification(report: RunReport) -> Iterator[str]:
    found = report.verification
    yield "## Verification"
    yield (
        f"Full and compact model ran in onnxruntime without graph optimisation, on {_listed(found.runs)}. "
        "What counts is the largest absolute difference over the largest absolute value of the output."
    )
    if found.passed:
        largest = f"{found.max_relative_difference:.1e}" if found.max_relative_difference else "exactly 0"
        sentence = f"Passed: it is {largest}, and {found.tolerance:.0e} is allowed."
    else:
        sentence = f"**Failed**: {_quoted(found.explanation)}."
    if found.moved is not None:
        sentence += f" The removal moved the output of the original full model by {found.moved:.1e}."
    yield sentence
    if found.remarks:
        yield "\n".join(f"- {_quoted(remark)}" for remark in found.remarks)


def _settings(report: RunReport) -> Iterator[str]:
    yield "## How it was run"
    rows = [(name, _value(value)) for name, value in report.settings.items()]
    yield _table(("option", "value"), *rows, left=2)
    times = [f"{stage} {numbers.duration(seconds)}" for stage, seconds in report.stages.items()]
    if times:
        yield f"Where the steps spent their time: {', '.join(times)}."
    if report.versions:
        yield f"Versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}."


def _table(header: Sequence[str], *rows: Sequence[str], left: int = 1) -> str:
    """A Markdown table, padded so that it reads as text too; the first `left` columns are text, the others numbers."""
    widths = [max(3, *(len(row[at]) for row in (header, *rows))) for at in range(len(header))]
    texts = [at < left or not _is_numeric(row[at] for row in rows) for at in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if t else c.rjust(w) for c, w, t in zip(cells, widths, texts, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (w - 1)}{'-' if t else ':'}" for w, t in zip(widths, texts, strict=True)]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, rows)])


def _is_numeric(cells: Iterable[str]) -> bool:
    return all(cell[:1] in "0123456789–−+" for cell in cells)


def _more(rows: Sequence[object]) -> str:
    return f"\n\n… and {len(rows) - _MOST_ROWS} more, in report.json." if len(rows) > _MOST_ROWS else ""


def _spread(rows: Sequence[Mapping[str, Any]], most: int) -> Sequence[Mapping[str, Any]]:
    """At most so many rows, evenly spread, first and last among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(at * (len(rows) - 1) / (most - 1))] for at in range(most)]


def _span(epochs: Sequence[int]) -> str:
    return f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"


def _names(names: Sequence[str]) -> str:
    """The operators of a chain, the middle left out where they are many."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(map(_code, names)) or numbers.DASH
    return f"{_code(names[0])}, {_code(names[1])}, …, {_code(names[-1])} ({len(names)})"


def _code(name: str) -> str:
    """A name as code; a bar would end the cell of a table, and a backtick the code."""
    fence = "``" if "`" in name else "`"
    pad = " " if "`" in name else ""
    return f"{fence}{pad}{name}{pad}{fence}".replace("|", "\\|")


def _quoted(text: str) -> str:
    """A sentence whose names in single quotes become code."""
    return re.sub(r"(?<!\w)'([^'`]+)'(?!\w)", r"`\1`", text.replace("|", "\\|"))


def _listed(items: Sequence[str]) -> str:
    """A, B and C."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _score(value: float | None) -> str:
    return numbers.DASH if value is None else f"{value + 0.0:.3g}".replace("-", "−")


def _value(value: object) -> str:
    if value is None or value == ():
        return numbers.DASH
    if isinstance(value, tuple):
        return ", ".join(_code(str(item)) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value).replace("|", "\\|")


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"
