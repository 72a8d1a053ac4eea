"""The order in which channels leave: targets, widths, and the last ones that stay."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_asgnas.config import Criterion, Mode, Target
from onnx_asgnas.errors import TargetError
from onnx_asgnas.operators.labelled import Kind
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.space.channel_selection import ChannelOrder, Widths
from tests.operators.cutting import model_of, sizes_of
from tests.random_graphs import networks
from tests.space.channel_networks import WEIGHTS, chain, heads, prunable, residual


def order_of(space: SearchSpace, seed: int = 0, **widths: int) -> ChannelOrder:
    channels = space.channels
    redundancy = np.random.default_rng(seed).random(channels.count)
    return ChannelOrder(channels, redundancy, Widths(**widths), np.zeros(channels.coupling.book.count, bool))


CHAIN = prunable(chain(5, 10, 7, 12, 4))


@pytest.mark.parametrize("seed", range(3))
def test_one_channel_of_every_tensor_stays(seed: int) -> None:
    order = order_of(CHAIN, seed)
    assert len(order) == CHAIN.channels.count - 3
    kept = np.bincount(CHAIN.channels.family_of[~order.first(len(order))])
    assert kept.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("fraction", "round_to", "at_least", "widths"),
    [
        (0.5, 1, 1, [5, 4, 6]),  # half of seven is three, and three leave
        (0.5, 4, 1, [8, 4, 8]),
        (0.5, 8, 1, [8, 7, 8]),  # seven stay where no multiple of eight is at most seven
        (0.99, 1, 1, [1, 1, 1]),
        (0.99, 1, 5, [5, 5, 5]),
        (0.99, 4, 5, [8, 7, 8]),
        (0.1, 1, 1, [9, 7, 11]),
        (0.01, 1, 1, [10, 7, 12]),
    ],
)
def test_widths_after_a_uniform_cut(fraction: float, round_to: int, at_least: int, widths: list[int]) -> None:
    order = order_of(CHAIN, round_to=round_to, at_least=at_least)
    kept = np.bincount(CHAIN.channels.family_of[~order.of_each_family(fraction)], minlength=3)
    assert kept.tolist() == widths


def test_heads_are_rounded_by_their_channels() -> None:
    """A head has three channels: a multiple of six channels is two heads, of nine channels three."""
    space = prunable(heads())
    for round_to, left in ((1, 2), (3, 2), (6, 2), (9, 3), (12, 4)):
        assert int((~order_of(space, round_to=round_to).of_each_family(0.5)).sum()) == left


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4), st.floats(0.05, 1))
def test_bisection_finds_the_fewest(seed: int, round_to: int, at_least: int, share: float) -> None:
    space = CHAIN
    order = order_of(space, seed, round_to=round_to, at_least=at_least)
    costs = space.parts.costs
    most = int(costs.full.macs * share)
    found = order.fewest(lambda mask: costs.cost(space.channels.labels(mask)).macs <= most)
    tried = [order.first(count) for count in range(len(order) + 1)]
    enough = [mask for mask in tried if costs.cost(space.channels.labels(mask)).macs <= most]
    assert (found is None) == (not enough)
    if found is not None:
        assert np.array_equal(found, enough[0])


@settings(max_examples=60)
@given(networks(), st.integers(0, 1000), st.integers(1, 4), st.integers(1, 3))
def test_any_beginning_leaves_something_everywhere(
    model: onnx.ModelProto, seed: int, round_to: int, at_least: int
) -> None:
    space = prunable(model)
    assume(space.channels.count)
    order = order_of(space, seed, round_to=round_to, at_least=at_least)
    for mask in (order.first(len(order)), order.first(len(order) // 2), order.of_each_family(0.7)):
        gone = space.channels.labels(mask)
        labels, starts = space.channels.segments
        assert not np.logical_and.reduceat(gone[labels], starts).any()
        for axis in space.channels.axes:
            if Kind.PRODUCED in axis.kind:
                left = int((~gone[axis.start : axis.start + axis.length]).sum())
                assert left >= min(at_least, axis.length)


def test_what_left_with_a_structure_counts_no_more() -> None:
    channels = CHAIN.channels
    gone = channels.labels(channels.family_of == 0)
    order = ChannelOrder(channels, np.zeros(channels.count), Widths(), gone)
    assert not order.first(len(order))[channels.family_of == 0].any()


@pytest.mark.parametrize("criterion", ["magnitude", "mean-magnitude"])
def test_the_least_norms_leave_first(criterion: Criterion) -> None:
    found = cut(CHAIN, Target(remove_groups=5), criterion=criterion)
    squares, sizes = CHAIN.channels.norms_squared(CHAIN.parts.graph)
    norms = squares / (sizes if criterion == "mean-magnitude" else 1)
    assert sorted(found.selection.chosen) == sorted(np.argsort(norms)[:5].tolist())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(remove_groups=27), "27 channel groups cannot be removed: at most 26 of 29 can go together"),
        (Target(keep_macs=0.01), "of the multiply-accumulates cannot be kept: at least"),
        (Target(keep_params=0.01), "of the parameters cannot be kept: at least"),
    ],
)
def test_targets_out_of_reach(target: Target, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        cut(CHAIN, target)
    if target.remove_groups is None:
        name = "keep_macs" if target.keep_macs else "keep_params"
        fraction = float(str(caught.value).split("at least ")[1].split(" ")[0])
        assert cut(CHAIN, Target(**{name: fraction + 1e-3})).kept["macs"] < 0.1


MEASURES = st.sampled_from(["params", "macs"])


@settings(max_examples=60)
@given(networks(), st.sampled_from(get_args(Mode)[1:]), MEASURES, st.floats(0.3, 0.95))
def test_a_target_is_met_and_costs_are_those_of_the_compact_model(
    model: onnx.ModelProto, mode: Mode, measure: str, share: float
) -> None:
    space = analyze(model, mode=mode)
    assume(space.candidates or space.channels.count)
    try:
        found = cut(space, Target(**{f"keep_{measure}": share}))
    except TargetError as error:
        assert "must stay" in str(error)
        return
    assert found.kept[measure] <= share
    trained = sizes_of(found.compact)  # a scale of one channel is a number, which by itself does not count as trained
    params = sum(math.prod(trained[name]) for name in space.parts.costs.parameters if name in trained)
    kept = {"params": params / space.params, "macs": prunable(found.compact).macs / max(space.macs, 1)}
    assert found.kept == pytest.approx(kept, rel=1e-9)


@settings(max_examples=60)
@given(networks(), MEASURES, st.floats(0.3, 0.95))
def test_with_one_group_less_the_target_would_not_be_met(model: onnx.ModelProto, measure: str, share: float) -> None:
    space = prunable(model)
    assume(space.channels.count)
    squares, _ = space.channels.norms_squared(space.parts.graph)
    none = np.zeros(space.channels.coupling.book.count, bool)
    order = ChannelOrder(space.channels, -np.sqrt(squares), Widths(), none)
    try:
        chosen = cut(space, Target(**{f"keep_{measure}": share})).selection.chosen
    except TargetError:  # even with all that may leave
        chosen = tuple(range(len(order) + 1))
    before = space.parts.costs.cost(space.channels.labels(order.first(len(chosen) - 1)))
    assert getattr(before, measure) > math.floor(share * getattr(space, measure) + 1e-6)


def test_joint_mode_counts_in_parameters_or_macs() -> None:
    space = analyze(residual(), mode="joint")
    assert [s.tensor for s in space.candidates] == ["g"]
    for target in (Target(uniform=0.5), Target(remove_groups=2)):
        with pytest.raises(TargetError, match="no common number counts"):
            cut(space, target)


def test_structures_go_first_and_channels_take_the_last_step() -> None:
    space = analyze(residual(), mode="joint")
    branch = 2 * 48 / space.params
    assert cut(space, Target(keep_params=1 - branch / 2)).selection.chosen[0] > 0
    found = cut(space, Target(keep_params=1 - branch * 1.2))
    assert found.selection.chosen[0] == 0
    assert len(found.selection.chosen) > 1
    assert "v" not in sizes_of(found.compact)
    found.verify().require()


def test_a_structure_that_saves_nothing_of_what_counts_stays() -> None:
    model = model_of(
        """(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) {
            h0 = Conv (x, w, b)  h = BatchNormalization (h0, scale, shift, mean, variance)
            m = Conv (h, v)  r = Relu (m)  g = Conv (r, u)  t = Mul (h, gate)
            p = Add (h, g)  s = Add (p, t)  y = Conv (s, end) }""",
        {**WEIGHTS, "gate": np.ones((8, 1, 1), np.float32)},
    )
    space = analyze(model, mode="joint")
    free = [s.tensor for s in space.candidates].index("t")
    assert space.candidates[free].macs == 0

    def rank(chosen: tuple[int, ...]) -> NDArray[np.float64]:
        return np.where(np.arange(len(space.groups)) == free, -0.5, -1.0)

    assert free not in space.choose(rank, Target(keep_macs=0.5), by_gain=True).chosen
