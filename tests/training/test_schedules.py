from __future__ import annotations

import math

import pytest
import torch

from onnx_asgnas.errors import InputError
from onnx_asgnas.training.schedules import LearningRate, learning_rate


def rates(schedule: LearningRate, total: int) -> list[float]:
    return [schedule(at, total) for at in range(total)]


def test_the_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for factor in rates(learning_rate("cosine"), 20):
        assert 0.1 * factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_cosine_may_begin_later() -> None:
    found = rates(learning_rate("cosine?hold=0.15"), 100)
    assert found[:16] == [1.0] * 16
    assert found[15:] == pytest.approx(rates(learning_rate("cosine"), 85))


def test_a_constant_is_one() -> None:
    assert rates(learning_rate("constant"), 5) == [1.0] * 5


def test_steps_fall_at_their_milestones() -> None:
    found = rates(learning_rate("step?milestones=(0.5,0.8)&gamma=0.1"), 10)
    assert found == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_the_warm_up_rises_to_the_full_rate_and_the_cosine_follows() -> None:
    found = rates(learning_rate("cosine", warmup=0.2), 20)
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert found[12] == pytest.approx(0.5 * (1 + math.cos(math.pi * 8 / 16)))
    assert found[4:] == sorted(found[4:], reverse=True)


def test_the_rate_does_not_fall_below_its_floor() -> None:
    found = rates(learning_rate("cosine", floor=0.05), 100)
    assert min(found) == found[-1] == 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triangle", "there is no schedule 'triangle'"),
        ("cosine?gamma=1", "has no argument 'gamma'"),
        ("cosine?hold=1", "hold is 1"),
        ("cosine?hold=-0.1", "hold is -0.1"),
        ("step?milestones=0.5", "milestones are 0.5"),
        ("step?gamma=-1", "gamma is -1"),
        ("step?gamma=fast", "is not of type float"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learning_rate(text)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"floor": 1.5}])
def test_a_warm_up_and_a_floor_are_parts(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="is "):
        learning_rate("cosine", **options)
