"""The table full against compact, as rows of text: the report and the command line draw the same one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from onnx_asgnas.report import numbers

Row = tuple[str, ...]
_Facts = Mapping[str, Any]
_Quantity = tuple[
    str,
    Callable[[_Facts], "float | None"],
    Callable[["float | None"], str],
    Callable[["float | None", "float | None"], str],
]


def comparison_rows(facts: _Facts) -> list[Row]:
    """The header, and a row for each quantity that was measured of any model.

    `facts` is what `Benchmark.to_dict()` or `RunReport.to_dict()` gives. The columns are the quantity, the models, and
    for a pair of them the change; the change of the median latency is that of paired runs.
    """
    if "models" in facts:
        models = facts["models"]
        header: Row = ("", "full", *(f"model {at}" for at in range(1, len(models))))
    else:
        models = [facts["full"]] if facts["compact"] is None else [facts["full"], facts["compact"]]
        header = ("", "full", "compact", "change")[: 2 * len(models)]
    rows = [_row(name, models, read, show, differ) for name, read, show, differ in (*_QUANTITIES, *_metrics(models))]
    ratio = facts.get("latency_ratio")
    if ratio is not None:
        rows = [(*row[:3], numbers.change(1, ratio)) if row and row[0] == _MEDIAN else row for row in rows]
    return [header, *(row for row in rows if row)]


def _row(
    name: str,
    models: Sequence[_Facts],
    read: Callable[[_Facts], float | None],
    show: Callable[[float | None], str],
    differ: Callable[[float | None, float | None], str],
) -> Row:
    """One row; empty where nobody measured this."""
    values = [read(model) for model in models]
    if all(value is None for value in values):
        return ()
    changes = (differ(*values),) if len(values) == 2 else ()
    return (name, *map(show, values), *changes)


def _metrics(models: Sequence[_Facts]) -> Iterator[_Quantity]:
    """The metrics beside the accuracy, by name."""
    names = dict.fromkeys(name for model in models for name in model.get("metrics") or ())
    accuracies = [model["accuracy"] for model in models]
    for name in names:
        read = functools.partial(_metric, name)
        if name != "top1" or [read(model) for model in models] != accuracies:
            differ = numbers.points if numbers.is_fraction(name) else numbers.change
            yield name, read, functools.partial(numbers.metric, name), differ


def _metric(name: str, model: _Facts) -> float | None:
    value: float | None = (model.get("metrics") or {}).get(name)
    return value


def _latency(part: str) -> Callable[[_Facts], float | None]:
    return lambda model: model["latency_ms"] and model["latency_ms"][part]


_MEDIAN = "latency, median"
_QUANTITIES = (
    ("parameters", lambda m: m["params"], numbers.count, numbers.change),
    ("multiply-accumulates", lambda m: m["macs"], numbers.count, numbers.change),
    ("file", lambda m: m["bytes"], numbers.size, numbers.change),
    (_MEDIAN, _latency("median"), numbers.milliseconds, numbers.change),
    ("latency, 95th percentile", _latency("p95"), numbers.milliseconds, numbers.change),
    ("peak memory", lambda m: m.get("peak_memory"), numbers.size, numbers.change),
    ("accuracy", lambda m: m["accuracy"], numbers.percent, numbers.points),
)
