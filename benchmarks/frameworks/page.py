"""docs/frameworks.md: the tables and pictures of docs/frameworks.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.frameworks import plots, records
from benchmarks.frameworks.contenders import CONTROL, NETWORKS
from benchmarks.frameworks.latency import RUNTIME
from benchmarks.frameworks.losses import ITSELF, RATES, STEPS
from benchmarks.frameworks.records import Record

_LOSS_BOUND, _ACCURACY_BOUND = 1e-3, 1.0
"""How close losses, and mean accuracies in points, are to be."""

_HEAD = """# The same networks from several frameworks

Made from docs/frameworks.jsonl by the script that measures:

```
onnx-asgnas env create keras    # and jax, tensorflow
onnx-asgnas benchmark --frameworks
```

A ResNet-20 (width {resnet20}, for grey images of 28x28) and StackedUnets (width {stackedunets}), each written as users
of PyTorch, Keras 3 and Flax write them (`benchmarks/frameworks/*_networks.py`): NCHW modules, the functional API over
NHWC, nnx modules over NHWC. All read the same weights from one file. Everything runs on one thread.

The same network takes some care: Keras' "same" puts the border of a strided convolution on one side only, so that a
ZeroPadding2D stands before it, as in keras.applications; nearest resizing of Keras and JAX reads the middle of a pixel
and PyTorch's its corner, so that pixels are repeated and the image cut where its size is odd; and jax2onnx takes the
window and strides of nnx.max_pool by keyword only. Images are given to Keras' and Flax's models as [N, 28, 28, 1].
"""

_CONVERSION = """## Conversion and search space

*Differs* is the largest relative difference in onnxruntime from what PyTorch gives with these weights. Operators are
those of the converted file, and those that are left once constants and shape arithmetic are folded. Structures are
those that may be erased, and the minimal ones of them; channel groups those that may leave. Parameters and MACs that
are kept, and the difference from the zeroed full model, are those of `prune --uniform 0.5`.
"""

_SPACES = """Structures and channel groups are compared one by one, by the names of the weights: the same variables,
minimal or not, with the same parameters and MACs; and every channel group with the same indices of the same axes. An
exporter that gives one of two readers a copy of a tensor (Flax's sums read a Transpose back to NHWC, its poolings what
was there before) makes tensors more that only a sum reads: they are named here, and refused for what they share."""

_LOSSES = """## Training

The first {steps} losses of plain momentum SGD on the same batches in the same order: the largest difference from those
of PyTorch's model. *PyTorch itself* trains the module without ONNX. *{control}* is PyTorch's model again, with one
number in its first kernel moved to the next one that float32 has. Training amplifies what rounding leaves, the faster
the higher the rate: {low:g} is low enough to compare models, {high:g} is the default of a search.
"""

_STEP = """A step at batch 32, milliseconds (and its ratio to PyTorch itself, the median over rounds of random order):
"""

_CHOICE = """## What H2SPG chooses

With 9 steps at the low rate before the choice. *Differs* is the largest difference of a group's redundancy from that in
PyTorch's model, beside the range that redundancies have.
"""

_LATENCY = """## Latency

Milliseconds, medians; in brackets the median ratio to onnxruntime on the model converted from that framework, over
rounds of random order. Each contender is a process on one core. *Compact* is cut to the target of the search below, by
magnitude. *call* calls the model, *predict* is `predict_on_batch`; on torch that is no compiled form.
"""

_SEARCH = """## Search

6,000 images of Fashion-MNIST, test accuracy after the last epoch in percent, mean ± standard deviation over the seeds.
All contenders of a seed start from the same weights and see the same batches. What the control differs by is what
rounding alone does.
"""


def write(source: Path, path: Path) -> None:
    """Make the page and its pictures anew."""
    found = records.read(source)
    drawn = plots.draw(found, path.parent)
    path.write_text(document(found, drawn), encoding="utf-8")


def document(found: Sequence[Record], drawn: Mapping[str, str] | None = None) -> str:
    """The page; `drawn` names the picture of each kind of record that has one."""
    parts = [_HEAD.format(**{name: network.width for name, network in NETWORKS.items()})]
    for kind, section in _SECTIONS.items():
        mine = [record for record in found if record["kind"] == kind]
        if mine:
            picture = (drawn or {}).get(kind)
            parts += [section(mine), *([f"![{kind}]({picture})\n"] if picture else [])]
    return "\n".join([*parts, _around(found)])


def conversions(found: Sequence[Record]) -> str:
    """Operators, groups, time and what a cut leaves; whether the groups are the same."""
    heads = [
        *(
            "",
            "exporter",
            "seconds",
            "of the processor",
            "differs",
            "operators",
            "folded",
            "structures",
            "channel groups",
        ),
        *("parameters kept", "MACs kept", "off by"),
    ]
    rows = [
        [
            f"{_title(r)}, {r['framework']}",
            r["exporter"],
            f"{r['seconds']:.1f}",
            f"{r['processor']:.1f}",
            f"{r['differs']:.0e}",
            r["operators"],
            r["normal"],
            f"{r['structures']['erasable']}, {r['structures']['minimal']} minimal",
            f"{r['channels']['free']} of {r['channels']['total']}",
            f"{100 * r['pruned']['params']:.1f} %",
            f"{100 * r['pruned']['macs']:.1f} %",
            f"{r['pruned']['difference']:.0e}",
        ]
        for r in found
    ]
    return "\n".join([_CONVERSION, _table(heads, rows), "", _SPACES, "", *_same_spaces(found), "", *_kinds(found)])


def _same_spaces(found: Sequence[Record]) -> list[str]:
    lines = []
    for name, network in NETWORKS.items():
        mine = [r for r in found if r["network"] == name]
        if mine:
            alike = {what: len({r[what]["hash"] for r in mine}) == 1 for what in ("structures", "channels")}
            verdict = ", ".join(f"{what} {'the same' if same else '**not the same**'}" for what, same in alike.items())
            lines.append(f"- {network.title}: {verdict} in {_listed([r['framework'] for r in mine])}.")
    for r in found:
        lines += [
            f"- {_title(r)}, {r['framework']}: {count} more tensors that only a sum reads cannot be erased: {reason}."
            for reason, count in _without_names(r["structures"]["kept"]).items()
        ]
    return lines


def _without_names(reasons: Mapping[str, int]) -> dict[str, int]:
    """Reasons that differ in the name of a weight only are one."""
    counts: dict[str, int] = {}
    for reason, count in reasons.items():
        name = reason.split("'")[1] if reason.count("'") >= 2 else None
        general = reason.replace(f"'{name}'", "a weight of theirs") if name else reason
        counts[general] = counts.get(general, 0) + count
    return counts


def _kinds(found: Sequence[Record]) -> list[str]:
    """The operators of each model, most frequent first."""
    lines = ["Operators by type, folded:", ""]
    for r in found:
        told = ", ".join(f"{count} {name}" for name, count in r["types"].items())
        lines.append(f"- {_title(r)}, {r['framework']}: {told}.")
    return [*lines, ""]


def losses(found: Sequence[Record]) -> str:
    """How far losses are apart, and what a step costs."""
    heads = ["", "rate", *[name for name in found[0]["losses"][str(RATES[0])]][1:]]
    rows, verdicts = [], []
    for r in found:
        for rate, curves in r["losses"].items():
            first, *others = curves
            apart = {name: max(abs(a - b) for a, b in zip(curves[first], curves[name], strict=True)) for name in others}
            rows.append([_title(r), rate, *(f"{value:.1e}" for value in apart.values())])
            if float(rate) == RATES[0]:
                worst = max(value for name, value in apart.items() if name not in (CONTROL, ITSELF))
                verdicts.append(f"{_title(r)} {worst:.1e}")
    met = f"Frameworks apart at the low rate: {', '.join(verdicts)} (asked for: {_LOSS_BOUND:g})."
    steps = [[_title(r), *(f"{s['milliseconds']:.1f} ({s['ratio']:.2f})" for s in r["step"].values())] for r in found]
    told = _LOSSES.format(steps=STEPS, control=CONTROL, low=RATES[0], high=RATES[1])
    parts = [told, _table(heads, rows), "", met, "", _STEP, _table(["", *found[0]["step"]], steps), ""]
    return "\n".join(parts)


def choices(found: Sequence[Record]) -> str:
    """How far redundancies are apart, and which groups only one contender chooses."""
    rows = [
        [
            f"{_title(r)}, {name}",
            mine["chosen"],
            f"{mine['chosen'] - mine['only_one']} of {mine['chosen']}",
            f"{mine['differs']:.0e}",
            f"{r['range']:.2g}",
        ]
        for r in found
        for name, mine in r["contenders"].items()
    ]
    heads = ["", "groups chosen", "the same as PyTorch", "differs", "range"]
    return "\n".join([_CHOICE, _table(heads, rows), ""])


def latencies(found: Sequence[Record]) -> str:
    """Milliseconds and ratios, a column for each network and batch."""
    columns = {(r["network"], batch): None for r in found for batch in r["batches"]}
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for r in found:
        for batch, contenders in r["batches"].items():
            for name, one in contenders.items():
                ratio = "" if name == RUNTIME else f" ({one['ratio']:.2f})"
                row = cells.setdefault((r["framework"], name), {})
                row[r["network"], batch] = f"{one['milliseconds']:.3f}{ratio}"
    heads = ["", *(f"{NETWORKS[network].title}, batch {batch}" for network, batch in columns)]
    rows = [
        [f"{framework}: {name}", *(row.get(column, "–") for column in columns)]
        for (framework, name), row in cells.items()
    ]
    return "\n".join([_LATENCY, _table(heads, rows), ""])


def searches(found: Sequence[Record]) -> str:
    """Accuracy and size after the search."""
    rows, verdicts = [], []
    for name, network in NETWORKS.items():
        means = {}
        for contender in dict.fromkeys(r["framework"] for r in found):
            mine = [r for r in found if r["network"] == name and r["framework"] == contender]
            if mine:
                accuracies = [100 * r["accuracy"] for r in mine]
                means[contender] = fmean(accuracies)
                spread = f" ± {stdev(accuracies):.2f}" if len(mine) > 1 else ""
                rows.append(
                    [
                        f"{network.title}, {contender}",
                        f"{means[contender]:.2f}{spread}",
                        len(mine),
                        f"{fmean(r['params'] for r in mine):,.0f}",
                        f"{fmean(r['macs'] for r in mine) / 1e6:.2f} M",
                        f"{fmean(r['bytes'] for r in mine) / 1e3:.0f} KB",
                        f"{fmean(r['latency_ratio'] for r in mine):.2f}",
                        f"{max(r['difference'] for r in mine):.0e}",
                    ]
                )
        verdicts += _verdict(network.title, means)
    settings = [f"{n.title}: mode {n.mode}, {n.target}, {n.epochs} epochs" for n in NETWORKS.values()]
    heads = ["", "accuracy", "seeds", "parameters", "MACs", "file", "latency", "off by"]
    return "\n".join([_SEARCH, "; ".join(settings) + ".", "", _table(heads, rows), "", *verdicts, ""])


def _verdict(title: str, means: Mapping[str, float]) -> list[str]:
    """How far the frameworks' means are apart, and how far the control is from the model that it is a copy of."""
    frameworks = [value for name, value in means.items() if name != CONTROL]
    if len(frameworks) < 2:
        return []
    apart = f"{title}: the frameworks' means are {max(frameworks) - min(frameworks):.2f} points apart"
    told = f"{apart} (asked for: {_ACCURACY_BOUND:.1f})"
    if CONTROL in means and "PyTorch" in means:
        told += f", PyTorch's and its control's {abs(means[CONTROL] - means['PyTorch']):.2f}"
    return [f"{told}.  "]


_SECTIONS: dict[str, Callable[[Sequence[Record]], str]] = {
    "conversion": conversions,
    "losses": losses,
    "choice": choices,
    "latency": latencies,
    "search": searches,
}


def _title(record: Record) -> str:
    return NETWORKS[record["network"]].title


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _around(found: Sequence[Record]) -> str:
    """What made these results."""
    around: list[dict[str, Any]] = [r["around"] for r in found if "around" in r]
    if not around:
        return ""
    busy: dict[str, float] = {}
    for record in found:
        if "around" in record:
            busy[record["kind"]] = max(busy.get(record["kind"], 0.0), record["around"]["load"])
    last = around[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if version)
    environments = "; ".join(f"{name}: {', '.join(packages)}" for name, packages in last["environments"].items())
    commits = ", ".join(dict.fromkeys(each["commit"] for each in around if each["commit"])) or "outside of a checkout"
    loads = ", ".join(f"{kind} {load:g}" for kind, load in busy.items())
    return (
        f"Commits {commits}; {last['processor']}, {last['cores']} cores, Python {last['python']}, {versions}. "
        f"Environments: {environments}. "
        f"The load of the machine before each measurement was at most: {loads}. Where it is above the "
        "cores, ratios hold and times are too long.\n"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
