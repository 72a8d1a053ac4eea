"""Pruning from Python: the compact model, what is chosen, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_asgnas as nas
from onnx_asgnas import models
from onnx_asgnas.config import Criterion, Mode
from onnx_asgnas.errors import InputError, TargetError
from onnx_asgnas.pruning import cut, redundancy_of


@pytest.fixture(scope="module")
def space() -> nas.SearchSpace:
    return nas.analyze(models.build("stackedunets", width=8, seed=1), mode="prune")


def test_the_public_function_gives_a_verified_model() -> None:
    source = models.build("demosupnet", width=4)
    compact = nas.prune(source, nas.Target(keep_params=0.5))
    before, after = (sum(np.prod(t.dims) for t in m.graph.initializer) for m in (source, compact))
    assert after < 0.6 * before


@pytest.mark.parametrize("mode", ["prune", "joint"])
@pytest.mark.parametrize("criterion", ["magnitude", "mean-magnitude", "random"])
def test_every_criterion_meets_the_target(mode: Mode, criterion: Criterion) -> None:
    found = cut(models.build("stackedunets", width=4), nas.Target(keep_macs=0.5), mode=mode, criterion=criterion)
    assert found.kept["macs"] <= 0.5
    assert found.groups == len(found.selection.chosen) > 0
    verification = found.verify().require()
    assert verification.moved is not None
    assert verification.moved > 0


def test_the_random_choice_depends_on_the_seed_alone(space: nas.SearchSpace) -> None:
    chosen = [cut(space, nas.Target(uniform=0.5), criterion="random", seed=s).selection.chosen for s in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_least_norms_leave_first(space: nas.SearchSpace) -> None:
    found = cut(space, nas.Target(remove_groups=3))
    redundancy = redundancy_of(space, "magnitude")(())
    assert len(found.selection.chosen) == 3
    kept = np.delete(redundancy, list(found.selection.chosen))
    assert redundancy[list(found.selection.chosen)].min() >= np.sort(kept)[-1] - 1e-12 or len(kept) == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"criterion": "size"}, InputError, "criterion is 'size'"),
        ({"round_to": 0}, InputError, "round_to is 0"),
        ({"min_channels": 1.5}, InputError, "min_channels is 1.5"),
        ({"mode": "erase", "min_channels": 2}, InputError, "mode erase removes whole structures"),
        ({"protect": ["*"]}, TargetError, "no channel may leave"),
    ],
)
def test_what_is_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nas.prune(models.build("demosupnet", width=2), nas.Target(keep_params=0.5), **options)  # type: ignore[arg-type]
