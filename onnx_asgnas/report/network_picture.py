"""A small network as a picture, with what was removed in grey."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from onnx_asgnas.report.fates import fates_of
from onnx_asgnas.report.layers import Edge, Placed, in_layers
from onnx_asgnas.report.pictures import axes_of, new_figure, save_figure
from onnx_asgnas.space import SearchSpace

_COLUMN, _ROW = 1.25, 0.42
"""Inches from box to box: across at least, and down for each line of text."""
_BOX = (0.86, 0.56)
"""A box as a part of that."""
_SIGN, _MOST_SIGNS = 0.062, 24
"""The width of a character in inches, and the longest line."""
_KEPT, _GONE = "#0072b2", "#9aa0a8"
_MOST_BOXES = 150

Chain = list[str]


def draw_network(space: SearchSpace, chosen: Collection[str], path: Path) -> bool:
    """Draw the operators of a network, of which the structures `chosen` are gone; chains of them are one box.

    Gives whether it was drawn: a network of many boxes is better looked at in report.html.
    """
    chains, edges = chains_of(space, chosen)
    if len(chains) > _MOST_BOXES:
        return False
    gone = _gone(space, chosen)
    placed = in_layers(len(chains), edges)
    labels = [label_of(chain) for chain in chains]
    lines = [line for label in labels for line in label]
    column = max(_COLUMN, _SIGN * max(map(len, lines)) / _BOX[0])
    row = _ROW if all(len(label) == 1 for label in labels) else 1.5 * _ROW
    figure = new_figure(column * (placed.width + 1.1), row * (placed.height + 0.3))
    axes = axes_of(figure)
    axes.set(xlim=(-0.55, placed.width + 0.55), ylim=(placed.height - 0.35, -0.65))
    axes.axis("off")
    grey = [chain[0] in gone for chain in chains]
    _draw_edges(axes, placed, edges, grey)
    for label, (x, y), is_gone in zip(labels, placed.places, grey, strict=True):
        _draw_box(axes, "\n".join(label), x, y, is_gone)
    save_figure(figure, path)
    return True


def chains_of(space: SearchSpace, chosen: Collection[str]) -> tuple[list[Chain], list[Edge]]:
    """Operators that follow one another without a fork or a joint, in topological order, and the edges between them.

    A chain is gone as a whole or not at all.
    """
    graph = space.parts.graph
    gone = _gone(space, chosen)
    sources = [
        [graph.producer[name] for name in dict.fromkeys(reads) if name in graph.producer and name in graph.activations]
        for reads in graph.reads
    ]
    readers = [0] * len(graph.nodes)
    for found in sources:
        for source in found:
            readers[source] += 1
    head = list(range(len(graph.nodes)))
    for at, found in enumerate(sources):
        if len(found) == 1 and readers[found[0]] == 1:
            names = graph.nodes[at].name, graph.nodes[found[0]].name
            if (names[0] in gone) == (names[1] in gone):
                head[at] = head[found[0]]
    number = {first: at for at, first in enumerate(dict.fromkeys(head))}
    chains: list[Chain] = [[] for _ in number]
    for at, first in enumerate(head):
        chains[number[first]].append(graph.nodes[at].name)
    pairs = ((number[head[s]], number[head[at]]) for at, found in enumerate(sources) for s in found)
    return chains, sorted({(source, target) for source, target in pairs if source != target})


def _gone(space: SearchSpace, chosen: Collection[str]) -> set[str]:
    return {name for fate in fates_of(space, chosen, {}) if fate.removed for name in fate.structure.region}


def label_of(chain: Sequence[str]) -> list[str]:
    """The first and the last name of a chain, as one line, or as two: what they have in common stands above."""
    first, last = chain[0], chain[-1]
    text = first if len(chain) == 1 else f"{first} – {last}"
    if len(text) <= _MOST_SIGNS:
        return [text]
    common = first[: _parted_at(first, last)]
    rests = [name[len(common) :] for name in dict.fromkeys((first, last))]
    lines = (common.rstrip("./"), " – ".join(rests)) if common else (f"{first} –", last)[len(chain) == 1 :]
    return [f"…{line[1 - _MOST_SIGNS :]}" if len(line) > _MOST_SIGNS else line for line in lines]


def _parted_at(first: str, last: str) -> int:
    """Behind which separator two names differ; of one name, where its last part begins."""
    common = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return max(common.rfind("."), common.rfind("/")) + 1


def _draw_edges(axes: Any, placed: Placed, edges: Sequence[Edge], grey: Sequence[bool]) -> None:
    half = _BOX[1] / 2
    for (source, target), way in zip(edges, placed.ways, strict=True):
        dead = grey[source] or grey[target]
        points = [(way[0][0], way[0][1] + half), *way[1:-1], (way[-1][0], way[-1][1] - half)]
        style = {"color": _GONE if dead else "#444a52", "linestyle": (0, (3, 2)) if dead else "solid", "zorder": 1}
        axes.plot(*zip(*points, strict=True), linewidth=1, solid_joinstyle="round", **style)


def _draw_box(axes: Any, text: str, x: float, y: float, is_gone: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = _GONE if is_gone else _KEPT
    box = FancyBboxPatch(
        (x - _BOX[0] / 2, y - _BOX[1] / 2),
        *_BOX,
        boxstyle="round,pad=0,rounding_size=0.1",
        edgecolor=colour,
        facecolor="#f2f3f5" if is_gone else "#dcebf6",
        linestyle=(0, (3, 2)) if is_gone else "solid",
        zorder=2,
    )
    axes.add_patch(box)
    ink = "#868c95" if is_gone else "#1b1f26"
    axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=ink, zorder=3)
