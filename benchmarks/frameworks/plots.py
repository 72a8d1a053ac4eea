"""The pictures of docs/frameworks.md, as small SVG files that the same results give to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frameworks.contenders import CONTROL, NETWORKS
from benchmarks.frameworks.latency import COMPACT, RUNTIME
from benchmarks.frameworks.records import Record

_FLOOR = 1e-8
"""Differences below are drawn here: equal losses have no logarithm."""


def draw(found: Sequence[Record], folder: Path) -> dict[str, str]:
    """Draw what there are records for; the file of each kind, relative to the folder."""
    drawn = {}
    for kind, draw_one in (("losses", _losses), ("latency", _latencies), ("search", _searches)):
        mine = [record for record in found if record["kind"] == kind]
        if mine:
            name = f"frameworks-{kind}.svg"
            _save(draw_one(mine), folder / name)
            drawn[kind] = name
    return drawn


def _losses(found: Sequence[Record]) -> Any:
    """How far each contender's losses are from the first one's, step by step, at each rate."""
    panels = [(r, rate) for r in found for rate in r["losses"]]
    figure = _figure(9, 2.6 * len(found))
    places = figure.subplots(len(found), len(panels) // len(found), squeeze=False).flat
    for axes, (r, rate) in zip(places, panels, strict=True):
        first, *others = r["losses"][rate]
        reference = np.array(r["losses"][rate][first])
        for name in others:
            apart = np.maximum(np.abs(np.array(r["losses"][rate][name]) - reference), _FLOOR)
            axes.semilogy(range(1, len(apart) + 1), apart, label=name, linestyle="--" if name == CONTROL else "-")
        axes.set(title=f"{NETWORKS[r['network']].title}, rate {rate}", xlabel="step", ylabel=f"off {first}'s loss")
        axes.set_xticks([1, *range(5, len(reference) + 1, 5)])
        axes.set_ylim(_FLOOR / 2, 1)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    return figure


def _latencies(found: Sequence[Record]) -> Any:
    """The time of each contender over onnxruntime's, batch 1 and 32."""
    networks = list(dict.fromkeys(r["network"] for r in found))
    bars = {network: _bars([r for r in found if r["network"] == network]) for network in networks}
    names = list(dict.fromkeys(name for ratios in bars.values() for name in ratios))
    batches = list(found[0]["batches"])
    figure = _figure(9, 1.1 + 0.3 * len(names))
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False, sharey=True).flat, networks, strict=True):
        drawn = [name for name in names if name in bars[network]]
        places = np.array([names.index(name) for name in drawn])
        for at, batch in enumerate(batches):
            ratios = [bars[network][name][batch] for name in drawn]
            axes.barh(places + 0.4 * at - 0.2, ratios, 0.38, label=f"batch {batch}")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xscale="log", xlabel="time over that of onnxruntime", title=NETWORKS[network].title)
        axes.set_yticks(range(len(names)), names, fontsize="small")
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="x", alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    return figure


def _bars(found: Sequence[Record]) -> dict[str, dict[str, float]]:
    """The ratio of each contender of each framework at each batch."""
    return {
        f"{r['framework']}: {'compact' if name == COMPACT else name}": {
            batch: contenders[name]["ratio"] for batch, contenders in r["batches"].items()
        }
        for r in found
        for name in next(iter(r["batches"].values()))
        if name != RUNTIME
    }


def _searches(found: Sequence[Record]) -> Any:
    """The accuracy of every run."""
    networks = list(dict.fromkeys(r["network"] for r in found))
    contenders = list(dict.fromkeys(r["framework"] for r in found))
    figure = _figure(9, 3)
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False).flat, networks, strict=True):
        for at, contender in enumerate(contenders):
            mine = [r for r in found if (r["network"], r["framework"]) == (network, contender)]
            accuracies = [100 * r["accuracy"] for r in mine]
            if accuracies:
                axes.plot([at] * len(accuracies), accuracies, "o", alpha=0.6)
                axes.plot([at - 0.25, at + 0.25], [np.mean(accuracies)] * 2, color="black")
        names = [name.replace(", ", ",\n") for name in contenders]
        axes.set_xticks(range(len(contenders)), names, fontsize="small")
        axes.set(title=NETWORKS[network].title, ylabel="test accuracy, %")
        axes.grid(axis="y", alpha=0.3)
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
