"""docs/pruning.md: the tables of docs/pruning.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.peers.growth import exponents
from benchmarks.peers.records import CHECKOUT, RECORDS, read

PAGE = CHECKOUT / "docs" / "pruning.md"
Record = dict[str, Any]

_HEAD = """# Pruning against its peers

Made from docs/pruning.jsonl by the scripts that measure. To get it again, on two cores that do nothing else:

```
make bench-env        # torch, torchvision, torch-pruning, onnxsim, onnxruntime in one environment
make bench-pruning    # exports what is missing, measures all tables of this page
```

The networks are torchvision's, exported by both of torch's exporters, with the same random weights on either side.
torch-pruning is used as its own tests use it: `MagnitudePruner`, ℓ2 magnitude, `pruning_ratio` 0.5, the classifier
ignored, a vision transformer rounded to its number of heads.
"""

_SPEED = """## Analysis and cut

Seconds, medians of {rounds} runs in rounds of random order, in one process of one thread. *Analysis* is `nas.analyze`
of a loaded ONNX model (its check, normal form, shapes and labels) up to the group of every index of every weight,
against torch-pruning's dependency graph and all its groups on a loaded module; *told* adds what could go at most,
costs, and the reasons for what stays. *Cut* is `onnx_asgnas.pruning.cut` of half the channels from a loaded model
(analysis, choice by magnitude, surgery), against torch-pruning's whole prune. *Faster* is the median over the rounds
of their time over ours. onnxsim is what the other tool that prunes ONNX runs first.
"""

_GROWTH = """## Growth

Chains of residual branches with a Concat in every fourth block. Seconds are the median of the analyses in a process;
memory is by how much the first of them raised the process's peak above what it held with the model loaded. Exponents
are fitted by least squares on logarithms.
"""

_DEPTH = """## Depth

Parameters and MACs kept at half the channels of every layer (`--uniform 0.5`, `pruning_ratio` 0.5). *Differs* is the
largest relative difference between our compact model and the full one with what was removed at zero, in onnxruntime
without optimisation. torch-pruning also cuts the channels that a LayerNorm normalises over, which changes the
statistics of those that stay: no zeroed full model gives its result. What is removed here is only what can go
exactly.
"""

_LATENCY = """## Latency

Milliseconds in onnxruntime {runtime}, batch 1, medians; in brackets the median, over rounds of random order, of the
ratio to the full model. torch-pruning is at the ratio at which it keeps as many parameters as ours.
"""


def write(path: Path = PAGE, source: Path = RECORDS) -> None:
    """Make the page anew."""
    path.write_text(document(read(source)), encoding="utf-8")


def document(records: Sequence[Record]) -> str:
    """The page of these records."""
    kinds = {"speed": speed, "growth": growth, "depth": depth, "latency": latency}
    parts = [_HEAD]
    for kind, section in kinds.items():
        found = [record for record in records if record["kind"] == kind]
        if found:
            parts.append(section(found))
    return "\n".join(parts)


def speed(records: Sequence[Record]) -> str:
    """Our times and the others', and the geometric means of the ratios."""
    columns = ("analysis", "torch-pruning analysis", "analysis, told", "cut", "torch-pruning prune", "onnxsim")
    rows = []
    for r in records:
        mine, groups, told, cut, prune, onnxsim = (_seconds(r, name) for name in columns)
        name = f"{r['model']}, {r['exporter']}"
        rows.append(
            [name, r["nodes"], mine, groups, _times(r, "analysis"), told, cut, prune, _times(r, "cut"), onnxsim]
        )
    heads = ["", "operators", "analysis", "theirs", "faster", "told", "cut", "theirs", "faster", "onnxsim"]
    rounds = min(found["runs"] for r in records for found in r["seconds"].values())
    lines = [_SPEED.format(rounds=rounds), _table(heads, rows), ""]
    for kind in ("analysis", "cut"):
        for exporter in dict.fromkeys(r["exporter"] for r in records):
            ratios = [r["ratio"][kind] for r in records if kind in r["ratio"] and r["exporter"] == exporter]
            if ratios:
                mean = f"{geometric_mean(ratios):.2f} times as fast in the geometric mean"
                lines.append(f"{kind.capitalize()}, {exporter}: {mean}, at least {min(ratios):.2f} times.  ")
    return "\n".join([*lines, "", _around(records)])


def _seconds(record: Record, name: str) -> str:
    return f"{record['seconds'][name]['median']:.3f}" if name in record["seconds"] else "–"


def _times(record: Record, kind: str) -> str:
    return f"**{record['ratio'][kind]:.2f}**" if kind in record["ratio"] else "–"


def growth(records: Sequence[Record]) -> str:
    """Time and memory by size, and the powers with which they grow."""
    rows, powers = [], []
    for mode in dict.fromkeys(r["mode"] for r in records):
        found = sorted((r for r in records if r["mode"] == mode), key=lambda r: int(r["operators"]))
        rows += [[mode, f"{r['operators']:,}", f"{r['seconds']:.3f}", f"{r['megabytes']:,}"] for r in found]
        if len(found) > 1:
            fitted = exponents(found)
            powers.append(f"{mode}: time {fitted['seconds']:.2f}, memory {fitted['megabytes']:.2f}")
    table = _table(["mode", "operators", "seconds", "MB"], rows)
    return "\n".join([_GROWTH, table, "", f"Exponents: {'; '.join(powers)}.", "", _around(records)])


def depth(records: Sequence[Record]) -> str:
    """What is kept, ours and theirs."""
    rows = []
    for r in records:
        theirs = r["torch-pruning"]
        for exporter, found in r["ours"].items():
            rows.append(
                [
                    f"{r['model']}, {exporter}",
                    _percent(found["params"]),
                    _percent(found["macs"]),
                    f"{found['difference']:.0e}",
                    _percent(theirs["params"]) if "params" in theirs else "fails",
                    _percent(theirs["macs"]) if "macs" in theirs else "",
                ]
            )
    failures = [f"{r['model']}: {r['torch-pruning']['refused']}  " for r in records if "refused" in r["torch-pruning"]]
    heads = ["", "parameters", "MACs", "differs", "torch-pruning: parameters", "MACs"]
    told = ["", "Where torch-pruning fails:  ", *failures] if failures else []
    return "\n".join([_DEPTH, _table(heads, rows), *told, "", _around(records)])


def latency(records: Sequence[Record]) -> str:
    """Milliseconds and ratios of the full model, ours and theirs, by threads."""
    labels = list(dict.fromkeys(label for r in records for label in r["models"]))
    rows = [
        [r["model"], r["threads"], *(_milliseconds(r["models"].get(label, {})) for label in labels)]
        for r in sorted(records, key=lambda r: (r["threads"], _place(r, records)))
    ]
    runtime = records[-1]["versions"].get("onnxruntime", "")
    return "\n".join([_LATENCY.format(runtime=runtime), _table(["", "threads", *labels], rows), "", _around(records)])


def _place(record: Record, records: Sequence[Record]) -> int:
    return [r["model"] for r in records].index(record["model"])


def _milliseconds(found: Record) -> str:
    if "milliseconds" not in found:
        return "fails"
    ratio = "" if found["ratio"] == 1 else f" ({found['ratio']:.2f})"
    kept = f", keeps {_percent(found['params'])}" if ratio else ""
    return f"{found['milliseconds']:.1f}{ratio}{kept}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _around(records: Sequence[Record]) -> str:
    """What made these results."""
    last = records[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    commits = ", ".join(dict.fromkeys(r["commit"] for r in records if r["commit"])) or "outside of a checkout"
    busy = max(r["load"] for r in records)
    return (
        f"Commit {commits}; {last['processor']}, {last['cores']} cores, Python {last['python']}, {versions}. "
        f"The load of the machine before each measurement was at most {busy}.\n"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
