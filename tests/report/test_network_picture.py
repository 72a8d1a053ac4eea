"""Small networks as pictures: where boxes stand, which operators share one, and what is grey."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from onnx_asgnas.models import build
from onnx_asgnas.report import network_picture
from onnx_asgnas.report.layers import in_layers
from onnx_asgnas.report.network_picture import chains_of, draw_network, label_of
from onnx_asgnas.space import SearchSpace, analyze


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return analyze(build("stackedunets", width=2))


def test_edges_go_down_and_boxes_stand_apart() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        count = int(random.integers(2, 30))
        pairs = {(int(a), int(b)) for a, b in random.integers(0, count, (2 * count, 2)) if a < b}
        placed = in_layers(count, sorted(pairs))
        assert all(layer < below for (_, layer), (_, below) in (w for way in placed.ways for w in pairwise(way)))
        assert all(way[0] == placed.places[a] for way, (a, _) in zip(placed.ways, sorted(pairs), strict=True))
        rows: dict[int, list[float]] = {}
        for across, layer in placed.places:
            rows.setdefault(layer, []).append(across)
        assert all(right - left > 0.99 for row in rows.values() for left, right in pairwise(sorted(row)))
        assert min(across for across, _ in placed.places) >= 0


def test_a_chain_is_one_column_and_a_longer_way_goes_around() -> None:
    placed = in_layers(3, [(0, 1), (1, 2), (0, 2)])
    assert [layer for _, layer in placed.places] == [0, 1, 2] and placed.height == 3
    assert len(placed.ways[2]) == 3
    assert placed.ways[2][1][0] != placed.places[1][0]
    assert in_layers(1, []).places == ((0.0, 0),)


def test_operators_that_follow_one_another_share_a_box(space: SearchSpace) -> None:
    chains, edges = chains_of(space, set())
    assert space.graph is not None
    assert [name for chain in chains for name in chain] == [node.name for node in space.graph.nodes]
    labels = [(chain[0], chain[-1]) for chain in chains]
    assert ("conv0", "conv3") in labels and ("pool13", "resize19") in labels
    assert all(source < target for source, target in edges)


def test_long_names_take_two_lines() -> None:
    assert label_of(["conv0", "relu2", "conv3"]) == ["conv0 – conv3"]
    assert label_of(["stage0.block0.first.k3.conv", "stage0.block0.first.k3.bn"]) == [
        "stage0.block0.first.k3",
        "conv – bn",
    ]
    assert label_of(["/features/features.0/features.0.0/Conv"]) == ["…features.0/features.0.0", "Conv"]
    assert label_of(["stage3.block0.add", "linear_of_head"]) == ["stage3.block0.add –", "linear_of_head"]
    assert label_of(["a" * 30]) == ["…" + "a" * 23]


def test_a_box_is_grey_as_a_whole_or_not_at_all(space: SearchSpace) -> None:
    whole, _ = chains_of(space, set())
    parted, _ = chains_of(space, {"resize24"})
    assert ["pool13", "conv14", "conv15", "resize19"] in parted
    assert len(parted) >= len(whole)


def test_what_is_drawn(space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw_network(space, {"bn75"}, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "conv0 – conv3" in text and network_picture._GONE in text and network_picture._KEPT in text
    assert draw_network(space, set(), tmp_path / "b.svg")
    assert network_picture._GONE not in (tmp_path / "b.svg").read_text(encoding="utf-8")
    monkeypatch.setattr(network_picture, "_MOST_BOXES", 3)
    assert not draw_network(space, set(), tmp_path / "c.svg")
    assert not (tmp_path / "c.svg").exists()
