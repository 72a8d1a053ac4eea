"""Channels as a reader finds them: names of layers, layers that are alike, how wide they became."""

from __future__ import annotations

from typing import Any

import onnx_asgnas as nas
from onnx_asgnas import models
from onnx_asgnas.pruning import cut
from onnx_asgnas.report.channels import (
    channel_fates,
    chosen_by_layer,
    family_rows,
    frozen_rows,
    kept_rows,
    layer_name,
)
from onnx_asgnas.space.families import ChannelFamily, Member


def family(name: str, *more: str, node: str = "/conv", **facts: Any) -> ChannelFamily:
    members = [Member(initializer=name, axis=0, kind="produced", nodes=(node,))]
    members += [Member(initializer=other, axis=0, kind="affine", nodes=(node,)) for other in more]
    members.append(Member(initializer="reader.weight", axis=1, kind="cut", nodes=("next",)))
    values = {"groups": 8, "free": 8, "channels": 8, "reasons": (), "params": 10, "macs": 100, **facts}
    return ChannelFamily(name=name, members=tuple(members), **values)


def test_a_layer_is_called_by_a_name_of_its_own() -> None:
    assert layer_name(family("block.0.conv.weight")) == "block.0.conv"
    assert layer_name(family("onnx::MatMul_453", "encoder.query.bias")) == "encoder.query"
    assert layer_name(family("val_34", node="node_MatMul_31")) == "node_MatMul_31"


def test_layers_that_differ_in_numbers_only_share_a_row() -> None:
    families = [family(f"block.{at}.conv.weight", params=10 * at) for at in range(12)]
    families.append(family("block.5.conv.weight", groups=4))
    assert len(family_rows(families, most=13)) == 13
    first, second = family_rows(families, most=12)
    assert (first.name, first.count, first.params, first.macs) == ("block.*.conv", 12, 55, 100)
    assert (second.name, second.count) == ("block.5.conv", 1)


def test_equal_reasons_share_a_row() -> None:
    space = nas.analyze(models.build("stackedunets", width=4), mode="joint", protect=["conv0"])
    rows = {row.reason: row for row in kept_rows(space)}
    assert rows["protected"].example == "conv0"
    assert any("graph output" in reason for reason in rows)
    assert sum(row.groups for row in frozen_rows(space)) >= 10


def test_widths_are_those_of_the_compact_model() -> None:
    source = models.build("stackedunets", width=4, seed=1)
    found = cut(source, nas.Target(keep_macs=0.4), mode="joint")
    fates = channel_fates(found.space, found.compact)
    dims = {t.name: list(t.dims) for t in found.compact.graph.initializer}
    for fate in fates:
        weight = dims.get(f"{fate.layer}.weight")
        assert fate.kept == (weight[0] if weight else 0)
    assert any(fate.kept < fate.width for fate in fates)
    counts = chosen_by_layer(found.space, found.selection.chosen)
    structures = sum(place < len(found.space.candidates) for place in found.selection.chosen)
    assert sum(counts.values()) == len(found.selection.chosen) - structures
    for fate in fates:
        if fate.kept:
            assert fate.width - fate.kept == counts.get(fate.layer, 0)
    assert channel_fates(nas.analyze(source), found.compact) == ()
