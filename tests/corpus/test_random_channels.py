"""Random networks in which channels travel: whatever leaves, the compact network is the zeroed full one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_asgnas.config import Target
from onnx_asgnas.errors import TargetError
from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.graph.runtime import run, session
from onnx_asgnas.operators.labelled import Kind
from onnx_asgnas.pruning import Pruned, cut
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.surgery import construct
from tests.corpus.exactness import check, removing
from tests.corpus.running import Runner
from tests.random_channels import channel_networks, feeds_of, seeded_channel_network

SEEDS = range(40)
"""Networks from plain seeds spread wider than what Hypothesis draws; Hypothesis finds the smallest that fails."""
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def assert_exact(cut_: Pruned, model: onnx.ModelProto) -> float:
    """Check a cut at two batch sizes; gives how far it moved the output."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    found = check(cut_, [feeds_of(model, 1), feeds_of(model, 2, fixed or 3)], Runner())
    assert found.problems == ()
    return found.moved


@FEW
@given(channel_networks(), st.integers(0, 2**16))
def test_any_channels_may_leave(model: onnx.ModelProto, seed: int) -> None:
    before, random = model.SerializeToString(), np.random.default_rng(seed)
    space = analyze(model, mode="prune")
    wanted = random.random(space.channels.count) < random.choice([0.1, 0.5, 0.9])
    assert_exact(removing(space, wanted), model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("part", range(4))
def test_any_channels_of_wider_networks_may_leave(part: int) -> None:
    moved = 0
    for seed in SEEDS[part::4]:
        model = seeded_channel_network(seed)
        space = analyze(model, mode="prune")
        random = np.random.default_rng(seed)
        assert space.channels.count, f"nothing may leave network {seed}"
        wanted = random.random(space.channels.count) < random.choice([0.1, 0.5, 0.9])
        moved += assert_exact(removing(space, wanted), model) > 0
        one = np.arange(space.channels.count) == random.integers(space.channels.count)
        assert_exact(removing(space, one), model)
    assert moved >= 0.8 * len(SEEDS[part::4])


@FEW
@given(channel_networks(), st.sampled_from([0.25, 0.5, 0.75]), st.sampled_from(["random", "magnitude"]))
def test_uniform_cuts_are_exact(model: onnx.ModelProto, fraction: float, criterion: str) -> None:
    space = analyze(model, mode="prune")
    if space.channels.count:
        target = Target(uniform=fraction)
        assert_exact(cut(space, target, criterion="random" if criterion == "random" else "magnitude"), model)


@FEW
@given(channel_networks(), st.sampled_from([0.5, 0.8]), st.booleans())
def test_structures_and_channels_leave_together(model: onnx.ModelProto, keep: float, of_macs: bool) -> None:
    space = analyze(model, mode="joint")
    target = Target(keep_macs=keep) if of_macs else Target(keep_params=keep)
    try:
        result = cut(space, target, criterion="random")
    except TargetError:
        return  # refused, with what can be reached
    assert_exact(result, model)
    assert result.kept["macs" if of_macs else "params"] <= keep


@FEW
@given(channel_networks())
def test_with_nothing_at_zero_it_is_the_normal_form_to_the_byte(model: onnx.ModelProto) -> None:
    for mode in ("prune", "joint"):
        space = analyze(model, mode=mode)
        assert construct(model, space).SerializeToString() == normalise(model).SerializeToString()


@FEW
@given(channel_networks(), st.sampled_from([2, 4]))
def test_widths_are_rounded_and_have_a_least(model: onnx.ModelProto, number: int) -> None:
    """Per layer: a multiple where something leaves, and never fewer than asked for."""
    space = analyze(model, mode="prune")
    if not space.channels.count:
        return
    least = cut(space, Target(uniform=0.75), criterion="random", min_channels=number)
    rounded = cut(space, Target(uniform=0.5), criterion="random", round_to=number)
    assert_exact(least, model)
    assert_exact(rounded, model)
    assert all(left >= min(number, full) for full, left in _widths(least))
    family, width = space.channels.family_of, space.channels.width
    gone = np.isin(np.arange(space.channels.count), rounded.selection.chosen)
    for at in np.unique(family[gone]):
        here = family == at
        assert (here & ~gone).sum() * width[here].max() % number == 0


def _widths(result: Pruned) -> list[tuple[int, int]]:
    """Of each axis that makes channels: its length, and what a cut leaves of it."""
    channels = result.space.channels
    gone = channels.labels(np.isin(np.arange(channels.count), result.selection.chosen))
    produced = [axis for axis in channels.axes if Kind.PRODUCED in axis.kind]
    return [(a.length, a.length - int(gone[a.start : a.start + a.length].sum())) for a in produced]


@FEW
@given(channel_networks(), st.integers(0, 2**16))
def test_what_is_protected_stays(model: onnx.ModelProto, seed: int) -> None:
    """A protected layer gives all its channels, whatever else leaves."""
    layers = [node for node in normalise(model).graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    layer = layers[seed % len(layers)]
    space = analyze(model, mode="prune", protect=[layer.name])
    assert layer.name in space.protected
    if space.channels.count:
        result = cut(space, Target(uniform=0.75), criterion="random", seed=seed)
        assert_exact(result, model)
        (name,) = layer.output
        full, compact = (
            run(session(m, threads=1, outputs=[name]), feeds_of(model), [name])[name]
            for m in (result.zeroed, result.compact)
        )
        assert full.shape == compact.shape


@FEW
@given(channel_networks())
def test_a_space_survives_json_and_says_why_channels_stay(model: onnx.ModelProto) -> None:
    graph = TraceGraph.of(model)
    space = analyze(graph, mode="joint")
    again = SearchSpace.from_json(space.to_json(), graph)
    assert again == space
    assert again.groups == space.groups
    assert space.unknown == ()
    assert space.channel_groups.free == space.channel_groups.total or space.frozen
    assert all(frozen.reason for frozen in space.frozen)
