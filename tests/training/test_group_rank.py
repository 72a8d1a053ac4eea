"""Structures by one score, channels by another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import onnx_asgnas as nas
from onnx_asgnas.config import Target
from onnx_asgnas.errors import InputError
from onnx_asgnas.space import Group, Slice
from onnx_asgnas.training.group_rank import GroupRank
from onnx_asgnas.training.groups import GroupAtoms
from onnx_asgnas.training.loss_probe import LossProbe
from onnx_asgnas.training.scores import Statistics
from tests.made_up import graph

GROUPS = Target(remove_groups=1)


@dataclass
class Space:
    candidates: tuple[Group, ...]
    channels: tuple[Group, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.candidates + self.channels


def groups(structures: int, channels: int) -> Space:
    return Space(
        tuple(Group(name=f"s{i}", slices=(Slice(initializer=f"s{i}"),)) for i in range(structures)),
        tuple(Group(name=f"c{i}", slices=(Slice(initializer="c", axis=0, indices=(i,)),)) for i in range(channels)),
    )


class Model(torch.nn.Module):
    """Two structures of norm 1 and 2, and channels of norm 0, 10, 20, ..."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.s0 = torch.nn.Parameter(torch.tensor([1.0]))
        self.s1 = torch.nn.Parameter(torch.tensor([2.0]))
        self.c = torch.nn.Parameter(10 * torch.arange(float(channels)))


def rank(space: Space, target: Target = GROUPS, **options: object) -> GroupRank:
    given = {"score": "magnitude", "channel_score": "magnitude", "momentum": 0.0, "measures": False, **options}
    return GroupRank(space, target, **given)  # type: ignore[arg-type]


def statistics(space: Space, model: Model) -> Statistics:
    atoms = GroupAtoms(space.groups, dict(model.named_parameters()))
    return Statistics(atoms, [p.detach() for p in atoms.parameters], [torch.ones_like(p) for p in atoms.parameters])


def test_each_kind_is_scaled_by_itself() -> None:
    space = groups(2, 3)
    ranked = rank(space)
    ranked.sample(statistics(space, Model()))
    assert ranked((), None).tolist() == [1.0, 0.0, 1.0, 0.5, 0.0]
    again = rank(space)
    again.load_state_dict(ranked.state_dict())
    assert again((), None).tolist() == ranked((), None).tolist()
    assert str(ranked) == "magnitude:1 and magnitude:1"


def test_structures_are_measured_and_channels_are_not() -> None:
    space, model = groups(2, 3), Model()
    ranked = rank(space, score="measured", channel_score="taylor1", measures=True)
    ranked.sample(statistics(space, model))
    probe = LossProbe(
        model,
        GroupAtoms(space.candidates, dict(model.named_parameters())),
        lambda: -float(model.s0.detach() + model.s1.detach() + model.c.detach().sum()),
    )
    assert ranked.reads_loss
    assert ranked.is_price
    assert ranked((), probe).tolist() == [-1.0, -2.0, 1.0, 0.5, 0.0]
    assert ranked((0, 3), probe)[1] == -2.0


@pytest.mark.parametrize(("structures", "channels"), [(2, 0), (0, 3), (0, 0)])
def test_one_kind_alone(structures: int, channels: int) -> None:
    space = groups(structures, channels)
    ranked = rank(space)
    if structures + channels:
        ranked.sample(statistics(space, Model()))
    values = ranked((), None)
    assert values.shape == (structures + channels,)
    assert np.isfinite(values).all()


def test_without_structures_nothing_has_to_be_measured() -> None:
    assert not rank(groups(0, 3), score="measured").reads_loss
    with pytest.raises(InputError, match="there is no evaluate"):
        rank(groups(1, 3), score="measured")
    with pytest.raises(InputError, match="takes too long"):
        rank(groups(0, 3), channel_score="measured", measures=True)


def test_an_estimate_is_a_price_for_what_the_target_counts() -> None:
    text = (
        "(float[N,2,4,4] x) => (float[N,1,4,4] y)"
        "<float[2,2,1,1] a = {1.0, 1.0, 1.0, 1.0}, float[2,2,3,3] b = {" + ",".join(["1.0"] * 36) + "},"
        " float[1,2,1,1] c = {1.0, 1.0}>"
        "{ t = Conv(x, a) u = Conv<pads=[1,1,1,1]>(t, b) y = Conv(u, c) }"
    )
    space = nas.analyze(graph(text), mode="prune")
    parameters = {name: torch.tensor(space.parts.graph.array(name)) for name in ("a", "b")}
    parameters["a"][0] *= 3
    atoms = GroupAtoms(space.groups, parameters)
    sums = Statistics(atoms, atoms.parameters, [torch.ones_like(p) for p in atoms.parameters])
    rises = np.array([6.0, 2.0, 18.0, 18.0]) / 18  # Σ x of the rows of a and of b, by the largest
    scaled = 1 - (rises - rises.min()) / (1 - rises.min())
    for target, gains in (
        (GROUPS, None),
        (Target(uniform=0.5), None),
        (Target(keep_params=0.5), [2 + 18, 2 + 18, 18 + 1, 18 + 1]),
        (Target(keep_macs=0.5), [16 * 20, 16 * 20, 16 * 19, 16 * 19]),
    ):
        ranked = GroupRank(space, target, score="measured", channel_score="taylor1", momentum=0.0, measures=False)
        ranked.sample(sums)
        expected = scaled if gains is None else (scaled - 1) / np.array(gains)
        np.testing.assert_allclose(ranked((), None), expected, atol=1e-12)
