"""What choose takes, against all subsets tried out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnx_asgnas.config import Target
from onnx_asgnas.errors import TargetError
from onnx_asgnas.models import build
from onnx_asgnas.space import Cost, SearchSpace, Selection, analyze, cost_of
from onnx_asgnas.space.selection import Rank
from onnx_asgnas.surgery import construct
from tests.random_graphs import graph_of, networks, seeded_network, zeroed

FEW = 8
"""Candidates of which all subsets are tried."""


@dataclass(frozen=True)
class Outcome:
    """What one valid subset of the candidates removes and leaves."""

    removed: int
    cost: Cost


def valid_subsets(space: SearchSpace) -> Iterator[Outcome]:
    """Every valid subset but the empty one."""
    state = space.removal_state()
    for bits in range(1, 2 ** len(space.candidates)):
        subset = [i for i in range(len(space.candidates)) if bits >> i & 1]
        for index in subset:
            state.erase(index)
        if state.valid:
            yield Outcome(state.removed, state.cost())
        for _ in subset:
            state.undo()


def random_rank(space: SearchSpace, seed: int) -> Rank:
    """Redundancies that change with every choice, as a measured score's do."""
    table = np.random.default_rng(seed).random((len(space.candidates) + 1, len(space.candidates)))
    return lambda chosen: table[len(chosen)]


def small_space(model: onnx.ModelProto) -> SearchSpace:
    space = analyze(model)
    assume(1 <= len(space.candidates) <= FEW)
    return space


def check(space: SearchSpace, selection: Selection) -> None:
    """It is what it says: valid, with this count and these costs."""
    state = space.removal_state()
    for index in selection.chosen:
        state.erase(index)
    assert selection.valid and state.valid
    assert selection.removed == state.removed
    assert selection.kept_params == pytest.approx(state.cost().params / space.params)
    assert selection.kept_macs == pytest.approx(state.cost().macs / max(space.macs, 1))
    assert selection.dead == state.dead_initializers()


@settings(max_examples=50)
@given(networks(steps=3), st.integers(0, 1000))
def test_every_k_is_met_as_well_as_it_can_be(model: onnx.ModelProto, seed: int) -> None:
    space = small_space(model)
    counts = {outcome.removed for outcome in valid_subsets(space)} - {0}
    largest = max(counts, default=0)
    assert space.max_removable.structures <= largest
    for k in range(1, space.max_removable.structures + 1):
        selection = space.choose(random_rank(space, seed + k), Target(remove_groups=k))
        check(space, selection)
        assert selection.removed == min(count for count in counts if count >= k)
        assert selection.exact == (selection.removed == k)
    with pytest.raises(TargetError):
        space.choose(random_rank(space, seed), Target(remove_groups=largest + 1))


@settings(max_examples=50)
@given(networks(steps=3), st.integers(0, 1000), st.sampled_from(["keep_params", "keep_macs"]))
def test_costs_are_met_without_a_needless_choice(model: onnx.ModelProto, seed: int, kind: str) -> None:
    space = small_space(model)
    full = getattr(space, kind.removeprefix("keep_"))
    certified = getattr(space.max_removable, kind.removeprefix("keep_"))
    assume(certified)
    state = space.removal_state()
    for part in (0.3, 0.7, 1.0):
        keep = math.nextafter(1 - part * certified / full, 1)
        selection = space.choose(random_rank(space, seed), Target(**{kind: keep}))
        check(space, selection)
        assert selection.exact
        assert getattr(selection, kind.replace("keep", "kept")) <= keep + 1e-9
        for needless in selection.chosen if len(selection.chosen) > 1 else ():
            others = [index for index in selection.chosen if index != needless]
            for index in others:
                state.erase(index)
            kept = getattr(state.cost(), kind.removeprefix("keep_")) / full
            assert not state.valid or kept > keep
            for _ in others:
                state.undo()


@settings(max_examples=30)
@given(networks(steps=4), st.integers(0, 1000))
def test_what_a_selection_says_is_what_construct_gives(model: onnx.ModelProto, seed: int) -> None:
    space = analyze(model)
    assume(space.max_removable.structures)
    k = 1 + seed % space.max_removable.structures
    selection = space.choose(random_rank(space, seed), Target(remove_groups=k))
    assert space.graph is not None
    compact = construct(zeroed(space.graph.model, [space.groups[i] for i in selection.chosen]), space)
    graph = graph_of(compact)
    rebuilt = analyze(graph)
    assert rebuilt.params / space.params == pytest.approx(selection.kept_params)
    assert rebuilt.macs / max(space.macs, 1) == pytest.approx(selection.kept_macs)
    assert not set(selection.dead) & set(graph.initializers)


def test_without_the_hierarchy_invalid_networks_are_chosen() -> None:
    """So that the tests above can fail: blind choice by the same scores is often wrong."""
    invalid = 0
    for seed in range(40):
        space = analyze(seeded_network(seed, steps=3))
        for k in range(1, space.max_removable.structures + 1):
            blind = space.choose(random_rank(space, seed), Target(remove_groups=k), hierarchy=False)
            invalid += not blind.valid
    assert invalid >= 3


@pytest.fixture(scope="module")
def unets() -> SearchSpace:
    return analyze(build("stackedunets", width=4))


@pytest.mark.parametrize(
    ("target", "message", "fix"),
    [
        (Target(remove_groups=6), "6 structures cannot be removed: at most 5 of 6 can go together", "5 or fewer"),
        (Target(keep_params=0.01), "0.01 of the parameters cannot be kept: at least ", "or more"),
        (Target(keep_macs=0.02), "0.02 of the multiply-accumulates cannot be kept: at least ", "or more"),
        (Target(uniform=0.5), "uniform takes channels out of every layer", "remove_groups, keep_params or keep_macs"),
    ],
)
def test_a_target_out_of_reach_says_what_is_the_most(
    unets: SearchSpace, target: Target, message: str, fix: str
) -> None:
    with pytest.raises(TargetError) as caught:
        unets.choose(random_rank(unets, 0), target)
    assert message in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize("kind", ["params", "macs"])
def test_the_largest_that_an_error_names_can_be_had(unets: SearchSpace, kind: str) -> None:
    with pytest.raises(TargetError) as caught:
        unets.choose(random_rank(unets, 0), Target(**{f"keep_{kind}": 0.001}))
    keep = float(caught.value.fix.split()[1])
    selection = unets.choose(random_rank(unets, 0), Target(**{f"keep_{kind}": keep}))
    assert getattr(selection, f"kept_{kind}") <= keep
    assert caught.value.largest == getattr(unets.max_removable, kind)


def test_a_fraction_counts_minimal_structures(unets: SearchSpace) -> None:
    for fraction, removed in ((0.5, 3), (0.1, 1), (0.6, 4), (0.83, 5)):
        assert unets.choose(random_rank(unets, 1), Target(remove_groups=fraction)).removed == removed


def test_a_model_with_nothing_to_remove_says_so() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N, 4] x) => (float[N, 2] y) <float[2, 4] w = {1,2,3,4,5,6,7,8}> {
            y = Gemm <transB = 1> (x, w) }"""
    )
    space = analyze(model)
    with pytest.raises(TargetError, match="nothing to remove"):
        space.choose(lambda _: np.zeros(0), Target(remove_groups=1))
    assert cost_of(graph_of(model), []).macs == 0


def test_by_gain_a_larger_structure_is_taken_for_what_it_takes_along() -> None:
    """Prices as once measured on StackedUnets: each small structure is cheaper, but three of them are dearer."""
    space = analyze(build("stackedunets", width=2))
    price = {"resize19": 0.1, "resize33": 0.5, "resize56": 0.2, "resize70": 0.6, "bn75": 0.27, "bn38": 0.9}
    redundancy = np.array([-price.get(s.tensor, 1.0) for s in space.candidates])

    def chosen(**options: bool) -> list[str]:
        selection = space.choose(lambda _: redundancy, Target(remove_groups=3), **options)
        assert (selection.removed, selection.valid, selection.exact) == (3, True, True)
        return [space.candidates[i].tensor for i in selection.chosen]

    assert chosen() == ["resize19", "resize56", "resize33"]
    assert chosen(by_gain=True) == ["bn75"]


@settings(max_examples=40)
@given(networks(), st.integers(0, 2**32 - 1))
def test_by_gain_meets_every_target_that_is_met_without(model: onnx.ModelProto, seed: int) -> None:
    space = small_space(model)
    table = -np.random.default_rng(seed).random(len(space.candidates))
    for count in range(1, space.max_removable.structures + 1):
        plain = space.choose(lambda _: table, Target(remove_groups=count))
        weighed = space.choose(lambda _: table, Target(remove_groups=count), by_gain=True)
        assert weighed.valid
        assert weighed.exact == plain.exact
        assert weighed.removed == plain.removed
