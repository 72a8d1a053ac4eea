"""The space of StackedUnets, node by node: what the paper's figure shows."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from onnx_asgnas.config import Target
from onnx_asgnas.models import build
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.surgery import construct
from tests.random_graphs import difference, outputs_of, zeroed

CHAINS = (("bn38", "resize33", "resize24", "resize19"), ("bn75", "resize70", "resize61", "resize56"))
"""The erasable tensors of each U-net, from the outermost region to the innermost."""

SEGMENTS = {
    "resize19": "pool13-conv14-conv15-resize19",
    "resize33": "conv26-conv27-bn28-relu29-resize33",
    "bn38": "relu35-conv36-relu37-bn38",
    "resize56": "conv50-conv51-conv52-resize56",
    "resize70": "conv63-conv64-bn65-relu66-resize70",
    "bn75": "relu72-conv73-relu74-bn75",
}
"""The published minimal removal structures."""

SECOND_UNET = (
    "conv39-bn40-relu41-conv42-conv43-relu44-conv45-relu46-bn47-conv48-conv49-conv50-conv51-conv52-resize56-add57-"
    "resize61-add62-conv63-conv64-bn65-relu66-resize70-add71-relu72-conv73-relu74-bn75"
)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """The network with every weight and statistic random."""
    model = build("stackedunets", width=4)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if not tensor.name.endswith((".running_var", ".scales")):
            values = onnx.numpy_helper.to_array(tensor)
            noise = random.normal(0, 0.2, values.shape).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values + noise, tensor.name))
    return model


@pytest.fixture(scope="module")
def space(model: onnx.ModelProto) -> SearchSpace:
    return analyze(model)


def places(space: SearchSpace, *tensors: str) -> tuple[int, ...]:
    """Where these candidates stand in the space."""
    names = [s.tensor for s in space.candidates]
    return tuple(names.index(tensor) for tensor in tensors)


def test_eight_tensors_can_be_erased_in_two_chains(space: SearchSpace) -> None:
    assert {s.tensor for s in space.candidates} == set(CHAINS[0]) | set(CHAINS[1])
    assert space.candidates == space.structures
    parents = {s.tensor: s.parent for s in space.candidates}
    for chain in CHAINS:
        assert [parents[tensor] for tensor in chain] == [None, *chain[:-1]]


def test_regions_nest_along_each_chain_and_are_disjoint_between_them(space: SearchSpace) -> None:
    regions = {s.tensor: set(s.region) for s in space.candidates}
    for chain in CHAINS:
        for outer, inner in itertools.pairwise(chain):
            assert regions[inner] < regions[outer]
    assert not regions["bn38"] & regions["bn75"]


def test_six_structures_are_minimal_with_the_published_segments(space: SearchSpace) -> None:
    minimal = {s.tensor: "-".join(s.segment) for s in space.candidates if s.minimal}
    assert minimal == SEGMENTS


def test_each_minimal_group_is_the_variables_of_its_segment(space: SearchSpace) -> None:
    for structure in space.candidates:
        if structure.minimal:
            owners = {variable.partition(".")[0] for variable in structure.variables}
            assert owners == {n for n in structure.segment if n.startswith(("conv", "bn"))}


@pytest.mark.parametrize(("larger", "inside"), [("resize24", "resize19"), ("resize61", "resize56")])
def test_a_resize_alone_behind_a_joint_is_the_larger_kind(space: SearchSpace, larger: str, inside: str) -> None:
    structures = {s.tensor: s for s in space.candidates}
    assert not structures[larger].minimal
    assert structures[larger].segment == (larger,)
    assert set(structures[inside].variables) < set(structures[larger].variables)


def test_bn75_takes_its_whole_upstream_along(space: SearchSpace) -> None:
    bn75 = next(s for s in space.candidates if s.tensor == "bn75")
    assert "-".join(bn75.region) == SECOND_UNET


def test_at_most_five_of_the_six_go_together(space: SearchSpace) -> None:
    """Over all subsets of the six: valid are exactly those without bn38 and bn75 at once."""
    minimal = places(space, *SEGMENTS)
    state = space.removal_state()
    largest = 0
    for size in range(1, 7):
        for subset in itertools.combinations(minimal, size):
            for index in subset:
                state.erase(index)
            chosen = {space.candidates[i].tensor for i in subset}
            assert state.valid == (not {"bn38", "bn75"} <= chosen)
            largest = max(largest, state.removed if state.valid else 0)
            for _ in subset:
                state.undo()
    assert largest == space.max_removable.structures == 5


def test_what_is_dead_with_another_counts_as_removed(space: SearchSpace) -> None:
    state = space.removal_state()
    assert state.erase(*places(space, "bn75"))
    assert state.removed == 3  # bn75, and with it resize70 and resize56
    assert {name.partition(".")[0] for name in state.dead_initializers()} == {
        n for n in SECOND_UNET.split("-") if n.startswith(("conv", "bn"))
    }


def test_the_papers_choice_is_valid_and_leaves_the_figures_network(model: onnx.ModelProto, space: SearchSpace) -> None:
    """K = 4: resize19, resize56, resize70 and bn75 go; with bn75 all of 39..75 is dead."""
    chosen = places(space, "resize19", "resize56", "resize70", "bn75")
    state = space.removal_state()
    assert all([state.erase(index) for index in chosen])
    assert state.removed == 4
    full = zeroed(model, [space.groups[i] for i in chosen])
    compact = construct(full, space)
    gone = {"pool13", "conv14", "conv15", "resize19", "add20", "add76", *SECOND_UNET.split("-")}
    left = [node.name for node in model.graph.node if node.name not in gone]
    assert [node.name for node in compact.graph.node] == left
    assert difference(outputs_of(full, 3), outputs_of(compact, 3)) == 0
    assert difference(outputs_of(model, 3), outputs_of(full, 3)) > 1e-2  # the removal was no empty one


def test_every_k_up_to_five_is_met_exactly_and_six_is_refused(space: SearchSpace) -> None:
    random = np.random.default_rng(0)
    for k in range(1, 6):
        for _ in range(20):
            scores = random.random(8)
            selection = space.choose(lambda _, scores=scores: scores, Target(remove_groups=k))
            assert (selection.removed, selection.valid, selection.exact) == (k, True, True)
