"""Channels layer by layer: what has slices of them, why some stay, and what leaves with the rest."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings

from onnx_asgnas.space import analyze
from onnx_asgnas.space.families import ChannelFamily
from tests.operators.cutting import model_of
from tests.random_graphs import networks
from tests.space.channel_networks import WEIGHTS, chain, heads, prunable, residual


def families(model: onnx.ModelProto, **options: object) -> dict[str, ChannelFamily]:
    return {family.name: family for family in prunable(model, **options).channel_families()}


def test_members_tell_who_makes_and_who_reads_them() -> None:
    found = families(residual())
    assert list(found) == ["w", "v", "end"]  # in the order of the operators; u belongs to the trunk
    members = {(m.initializer, m.axis): (m.kind, m.nodes) for m in found["w"].members}
    assert members == {
        ("w", 0): ("produced", ("Conv_0",)),
        ("b", 0): ("produced", ("Conv_0",)),
        **{(name, 0): ("affine", ("BatchNormalization_1",)) for name in ("scale", "shift")},
        **{(name, 0): ("cut", ("BatchNormalization_1",)) for name in ("mean", "variance")},
        ("v", 1): ("cut", ("Conv_2",)),
        ("u", 0): ("produced", ("Conv_4",)),
        ("end", 1): ("cut", ("Conv_6",)),
    }


def test_sums_are_what_the_layer_costs_by_itself() -> None:
    found = families(residual())
    trunk, branch, end = (found[name] for name in ("w", "v", "end"))
    assert (trunk.groups, trunk.free, trunk.channels, trunk.reasons) == (8, 8, 8, ())
    assert (trunk.params, trunk.macs) == (32 + 8 + 8 + 8 + 48 + 48 + 24, 36 * (32 + 48 + 48 + 24))
    assert (branch.params, branch.macs) == (96, 36 * 96)
    assert (end.groups, end.free, end.params, end.macs) == (3, 0, 0, 0)
    assert end.reasons == ("graph output y",)


def test_heads_are_few_groups_of_a_wide_layer() -> None:
    (family, _) = families(heads()).values()
    assert (family.groups, family.free, family.channels) == (4, 4, 12)


def test_protected_layers_have_no_free_groups() -> None:
    found = families(residual(), protect=["v"])
    assert (found["v"].free, found["v"].params, found["w"].free) == (0, 0, 8)


def test_a_layer_that_stays_as_a_whole_says_why() -> None:
    text = """(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) { h = Conv (x, w)  %s  y = Conv (s, end) }"""
    for use, reason in (
        ("s = Softmax <axis = 1> (h)", "Softmax normalises over its axis"),
        ("p = ReduceMax <axes = [1]> (h)  g = Sigmoid (p)  s = Mul (h, g)", "ReduceMax runs over channels"),
    ):
        family = families(model_of(text % use, WEIGHTS))["w"]
        assert (family.groups, family.free, family.params, family.reasons) == (8, 0, 0, (reason,))


def test_channels_that_only_leave_together_stay() -> None:
    """Every channel is tied to its neighbour, so the one group holds them all."""
    text = """(float[N, 5] x) => (float[N, 3] y) { h = MatMul (x, q)  i = Gather <axis = 1> (h, turn)  s = Add (h, i)
        y = MatMul (s, o) }"""
    found = families(model_of(text, WEIGHTS | {"turn": np.roll(np.arange(12), 1)}))
    assert found["q"].reasons == ("they leave only together, and one has to stay",)


def test_layers_taken_out_of_the_way_are_listed_too() -> None:
    """Those of an earlier pass: their labels are no more in the last one."""
    text = """(float[N, 2, 5] x) => (float[N, 2, 12] y, float[N, 2, 12] h) { h = MatMul (x, q)
        t = Transpose <perm = [0, 2, 1]> (h)  a = MatMul (t, mix)  r = Relu (a)  c = MatMul (r, unmix)
        y = Transpose <perm = [0, 2, 1]> (c) }"""
    model = model_of(text, WEIGHTS | {"mix": np.ones((2, 6), np.float32), "unmix": np.ones((6, 2), np.float32)})
    found = families(model)
    assert (found["q"].free, set(found["q"].reasons)) == (0, {"graph output h", "graph output y"})
    assert found["mix"].free == 6


def test_a_network_without_channels_has_no_families() -> None:
    assert families(model_of("(float[N, 5] x) => (float[N, 5] y) { y = Relu (x) }", {})) == {}


@settings(max_examples=40)
@given(networks())
def test_families_hold_every_group_and_their_costs(model: onnx.ModelProto) -> None:
    """Free groups are those of the space, and each family's sums are the cost with its groups gone, and no others."""
    for mode in ("prune", "joint"):
        space = analyze(model, mode=mode)  # type: ignore[arg-type]
        channels, costs = space.channels, space.parts.costs
        found = space.channel_families()
        assert sum(family.free for family in found) == channels.count
        assert all(family.reasons for family in found if family.free < family.groups)
        sums = []
        for number in range(int(channels.family_of.max(initial=-1)) + 1):
            left = costs.cost(channels.labels(channels.family_of == number))
            sums.append((costs.full.params - left.params, costs.full.macs - left.macs))
        assert sorted(sums) == sorted((f.params, f.macs) for f in found if f.free)


def test_a_chain_counts_each_layer() -> None:
    found = families(chain(5, 10, 7, 4))
    assert [(f.groups, f.free, f.params) for f in found.values()] == [(10, 10, 120), (7, 7, 98), (4, 0, 0)]
