"""docs/coverage.md: what the sweep found, and what was not exported."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.corpus_sweep.cases import MODES, cases_for

Record = dict[str, Any]

STATUSES = ("passed", "refused", "frozen", "vacuous", "failed", "crashed", "not run")
_WORST_FIRST = ("crashed", "failed", "not run", "frozen", "vacuous", "refused", "passed")
_REASONS = 25
_NAMES = 6

_HEAD = """# Coverage

Written by `make corpus`; do not edit. Networks of torchvision, timm and transformers with random weights, no two equal,
exported by both of torch's exporters (BatchNormalization not folded into convolutions; batch open, length too for
text), cut and checked with nothing of the package's own verify: compact gives what the zeroed full model
gives (≤ 1e-5 of the largest output, two sizes of each open dimension, onnxruntime {old} without optimisation); inputs
and outputs keep names, types and shapes; the zeroed model is the source with zeros; the file is valid and runs in
onnxruntime {new}; construct on the result removes nothing.

passed: all of this held in every case that was tried, which need not be every case planned. refused: the package said
why it does not cut this model. frozen: no
weight of a dense layer became smaller, or more than 99 % of the weights stay. vacuous: compact and zeroed agree, but
the outputs hardly depend on what was
removed, or on the inputs. failed: a check did not hold. not run: the runtime of the checks does not run the source. A
model counts by its worst case in the mode.
"""


def document(records: list[Record], index: list[Record], code: str, planned: dict[str, int] | None = None) -> str:
    """The page as Markdown."""
    by_file: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_file[record["file"]].append(record)
    about = {entry["file"]: entry for entry in index if entry["file"]}
    versions = {r["newest"]["version"] for r in records if "version" in r.get("newest", {})}
    parts = [
        _HEAD.format(old=_runtime(), new=", ".join(sorted(versions)) or "(none)"),
        *_extent(records, index, code, planned or {}),
        *_summary(by_file, index, about),
        *_troubles(by_file),
        *_modes(records),
        *_models(by_file, about),
        *_frozen(records),
        *_not_exported(index),
        *_again(),
    ]
    return "\n".join(parts) + "\n"


def worst(records: Iterable[Record]) -> str:
    """The status that counts for a model: that of its worst case."""
    return min((r["status"] for r in records), key=_WORST_FIRST.index, default="not swept")


def _extent(records: list[Record], index: list[Record], code: str, planned: dict[str, int]) -> Iterator[str]:
    """How much of the plan the page covers; what is missing here is not covered by any word below."""
    cases = sum(len(cases_for(entry["parameters"], MODES)) for entry in index if entry["file"])
    tried = Counter(entry["family"] for entry in index)
    rows = [[f, str(planned.get(f, tried[f])), str(tried[f])] for f in sorted({*planned, *tried})]
    now = sum(record["code"] == code for record in records)
    versions = len({record["code"] for record in records})
    modes = [f"{mode} {sum(r['mode'] == mode for r in records)}" for mode in MODES]
    fractions = sorted({f"{r['fraction']:g}" for r in records})
    yield "## How far this goes\n"
    yield (
        f"{len(records)} of the {cases} cases planned for the exported files have a result ({', '.join(modes)}; "
        f"fractions {', '.join(fractions)}). They were made by {versions} version{'s' * (versions != 1)} of the code; "
        f"{now} of them by the version of this page, {code}. Planned are three modes, and three fractions by two "
        "choices up to 30 M parameters, one above.\n"
    )
    yield from _table(["family", "exports planned", "exports tried"], rows)
    rounded = [record["rounding"] for record in records if "rounding" in record and record["status"] == "passed"]
    if rounded:
        most = max((size for size in rounded if math.isfinite(size)), default=0.0)
        others = "; in a detector scores tie, and it picks another box" if math.inf in rounded else ""
        yield (
            f"\nIn {len(rounded)} cases rounding in float32 alone moves the network's outputs by more than 1e-5 (by up "
            f"to {most:.1e}{others}): there both models were compared in float64, by ONNX's own reference.\n"
        )
    passed = [record for record in records if record["status"] == "passed"]
    faint = [record for record in passed if "signal" in record and not record.get("inside")]
    if faint:
        yield (
            f"\nIn {len(faint)} cases the signal has faded (with a quarter of its channels left, a network with random "
            "weights hardly reads its input): there the two models were compared in float64 too, and the difference is "
            "at most 1e-5 of what other inputs change.\n"
        )
    dead = [record for record in passed if record.get("inside")]
    if dead:
        yield (
            f"\nIn {len(dead)} cases no unit of some layer is alive any more, and the output is constant: there the "
            "norms of all inner tensors were compared, which removed zeros leave alone.\n"
        )
    yield ""


def _summary(by_file: dict[str, list[Record]], index: list[Record], about: dict[str, Record]) -> Iterator[str]:
    modes = [mode for mode in MODES if any(r["mode"] == mode for records in by_file.values() for r in records)]
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    files = [(e["family"], e["exporter"], e["file"]) for e in index]
    files += [("others", "as they are", file) for file in by_file.keys() - about.keys()]
    for mode in modes:
        for family, exporter, file in files:
            swept = [r for r in by_file.get(file, []) if r["mode"] == mode] if file else []
            counts[mode, family, exporter][worst(swept) if file else "not exported"] += 1
    columns = [s for s in (*STATUSES, "not exported", "not swept") if any(c[s] for c in counts.values())]
    yield "## Summary\n"
    yield from _table(
        ["mode", "family", "exporter", "files", *columns],
        [
            [*key, str(c.total()), *(str(c[s]) for s in columns)]
            for key, c in sorted(counts.items(), key=lambda item: (MODES.index(item[0][0]), *item[0][1:]))
        ],
    )


def _troubles(by_file: dict[str, list[Record]]) -> Iterator[str]:
    rows = []
    for file, records in sorted(by_file.items()):
        reasons = {(r["mode"], r["status"], r["reason"]) for r in records if r["status"] not in ("passed", "refused")}
        rows += [[file, *map(_cell, reason)] for reason in sorted(reasons)]
    if rows:
        yield "\n## What did not pass\n"
        yield from _table(["file", "mode", "status", "reason"], rows)
    refusals: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file, records in by_file.items():
        for record in records:
            if record["status"] == "refused":
                refusals[record["mode"], record["reason"]].add(file)
    if refusals:
        yield "\n## What was refused, and why\n"
        rows = [
            [mode, _cell(reason), str(len(files)), _some(files)] for (mode, reason), files in sorted(refusals.items())
        ]
        yield from _table(["mode", "reason", "files", "which"], rows)


def _modes(records: list[Record]) -> Iterator[str]:
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    largest: dict[tuple[str, str, str], float] = defaultdict(float)
    for record in records:
        key = (record["mode"], f"{record['fraction']:g}", record["criterion"])
        counts[key][record["status"]] += 1
        if record["status"] == "passed":
            largest[key] = max(largest[key], record["difference"])
    columns = [s for s in STATUSES if any(c[s] for c in counts.values())]
    yield "\n## Cases\n"
    yield from _table(
        ["mode", "fraction", "choice", "cases", *columns, "largest difference of those passed"],
        [
            [*key, str(c.total()), *(str(c[s]) for s in columns), f"{largest[key]:.1e}"]
            for key, c in sorted(counts.items())
        ],
    )


def _models(by_file: dict[str, list[Record]], about: dict[str, Record]) -> Iterator[str]:
    yield "\n## Models\n"
    yield (
        "Kept is what stays at `--uniform` 0.5, random choice, mode prune; the difference is the largest of all cases; "
        "seconds and peak memory are of analysis, choice and construct in that case, one thread.\n"
    )
    rows = []
    for file in sorted(by_file, key=lambda f: (about.get(f, {}).get("family", ""), f)):
        records = by_file[file]
        half = next((r for r in records if (r["mode"], r["fraction"], r["criterion"]) == ("prune", 0.5, "random")), {})
        groups, kept = half.get("groups", {}), half.get("kept", {})
        differences = [r["difference"] for r in records if "difference" in r]
        rows.append(
            [
                file.removesuffix(".onnx").replace(".", " "),
                _millions(half.get("params")),
                _number(half.get("operators")),
                f"{_number(groups.get('total'))} / {_number(groups.get('free'))}",
                _percent(kept.get("params")),
                _percent(kept.get("macs")),
                f"{max(differences):.1e}" if differences else "–",
                _seconds(half.get("seconds", {}).get("cut")),
                _number(half.get("memory_mb", {}).get("cut")),
                *(worst(r for r in records if r["mode"] == mode) for mode in MODES),
            ]
        )
    head = ["model, exporter", "parameters", "operators", "groups total / free", "parameters kept", "MACs kept"]
    yield from _table([*head, "difference", "s", "MB", *MODES], rows)


def _frozen(records: list[Record]) -> Iterator[str]:
    channels: Counter[tuple[str, str]] = Counter()
    files: dict[tuple[str, str], set[str]] = defaultdict(set)
    unknown: Counter[str] = Counter()
    for record in records:
        if (record["mode"], record["fraction"], record["criterion"]) != ("prune", 0.5, "random"):
            continue
        unknown.update(record.get("unknown", []))
        for op_type, reason, count in record.get("frozen", []):
            channels[op_type, reason] += count
            files[op_type, reason].add(record["file"])
    yield "\n## What froze the most channels\n"
    yield from _table(
        ["operator", "reason", "channels", "files", "for example"],
        [
            [op_type, _cell(reason), _number(count), str(len(files[op_type, reason])), _some(files[op_type, reason], 2)]
            for (op_type, reason), count in channels.most_common(_REASONS)
        ],
    )
    if unknown:
        names = ", ".join(f"{name} ({count})" for name, count in unknown.most_common())
        yield f"\nOperators that nobody registered, and in how many files: {names}."


def _not_exported(index: list[Record]) -> Iterator[str]:
    failed = [entry for entry in index if entry["status"] != "exported"]
    if failed:
        yield "\n## Not exported\n"
        yield from _table(
            ["model", "exporter", "reason"],
            [[e["model"], e["exporter"], _cell(e["reason"])] for e in sorted(failed, key=lambda e: e["model"])],
        )


def _again() -> Iterator[str]:
    yield "\n## To make it again\n"
    yield "```\nmake corpus                       # environments, export, sweep, this page; resumes"
    yield "make corpus CORPUS=/some/folder   # with the files elsewhere than in ~/.cache/onnx-asgnas/corpus\n```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _some(files: Iterable[str], most: int = _NAMES) -> str:
    names = sorted(file.removesuffix(".onnx") for file in files)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _millions(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:.2f} M"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _runtime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)
