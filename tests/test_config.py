"""Targets and configurations: what is refused and how, and JSON both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.errors import InputError, TargetError


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"remove_groups": 4}, "remove_groups=4"),
        ({"remove_groups": 0.5}, "remove_groups=0.5"),
        ({"remove_groups": 1.0}, "remove_groups=1"),
        ({"keep_params": 0.25}, "keep_params=0.25"),
        ({"keep_macs": 0.5}, "keep_macs=0.5"),
        ({"uniform": 0.5}, "uniform=0.5"),
    ],
)
def test_targets(values: dict[str, Any], text: str) -> None:
    assert str(Target(**values)) == text


@pytest.mark.parametrize("values", [{}, {"keep_params": 0.5, "keep_macs": 0.5}, {"remove_groups": 1, "uniform": 0.1}])
def test_a_target_is_exactly_one_thing(values: dict[str, Any]) -> None:
    with pytest.raises(TargetError, match=f"got {len(values)}"):
        Target(**values)


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, 1.5, 2.5, float("nan"), float("inf")])
def test_a_number_of_structures_out_of_range(value: float) -> None:
    with pytest.raises(TargetError, match="remove_groups is") as caught:
        Target(remove_groups=value)
    assert "0.5" in caught.value.fix


@pytest.mark.parametrize("name", ["keep_params", "keep_macs", "uniform"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, float("nan"), float("inf")])
def test_a_fraction_out_of_range(name: str, value: float) -> None:
    with pytest.raises(TargetError, match=f"{name} is"):
        Target(**{name: value})


@pytest.mark.parametrize("name", ["remove_groups", "keep_params", "keep_macs", "uniform"])
@pytest.mark.parametrize("value", ["0.5", True, [1]])
def test_a_target_is_a_number(name: str, value: object) -> None:
    with pytest.raises(TargetError, match=f"{name} is"):
        Target(**{name: value})  # type: ignore[arg-type]


@given(
    st.one_of(
        st.builds(lambda k: Target(remove_groups=k), st.integers(1, 99)),
        st.builds(lambda f: Target(keep_macs=f), st.floats(0.01, 0.99)),
    ),
    st.integers(1, 100),
    st.sampled_from(["sgd", "adam", "adamw"]),
    st.lists(st.text(max_size=5), max_size=2).map(tuple),
)
def test_a_configuration_goes_to_json_and_back(target: Target, epochs: int, variant: Any, protect: Any) -> None:
    config = SearchConfig(data="npz:f.npz", target=target, epochs=epochs, variant=variant, protect=protect)
    assert SearchConfig.from_json(config.to_json()) == config


def test_a_configuration_for_channels_goes_to_json_and_back() -> None:
    config = SearchConfig(
        data="d", target=Target(uniform=0.5), mode="joint", round_to=8, min_channels=4, channel_score="magnitude"
    )
    assert SearchConfig.from_json(config.to_json()) == config


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    config = SearchConfig(data="d", target=Target(remove_groups=1))
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    assert SearchConfig.read(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"min_lr": 0.1}, "min_lr is 0.1 and lr is 0.05"),
        ({"warmup_epochs": 10.0}, "warmup_epochs is 10 and epochs is 10"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm is 0.0"),
        ({"autocast": "fp8"}, "autocast is 'fp8'"),
        ({"select_at": 0.5, "zero_at": 0.5}, "select_at is 0.5 and zero_at is 0.5"),
        ({"select_at": -0.1}, "select_at is -0.1"),
        ({"zero_at": 1.1}, "zero_at is 1.1"),
        ({"mode": "other"}, "mode is 'other'"),
        ({"variant": "lion"}, "variant is 'lion'"),
        ({"method": "magic"}, "method is 'magic'"),
        ({"round_to": 8}, "round_to is 8, but mode erase"),
        ({"mode": "prune", "min_channels": 0}, "min_channels is 0"),
        ({"mode": "prune", "score": "paper"}, "mode prune removes channels only"),
        ({"channel_score": "paper"}, "mode erase removes no channels"),
    ],
)
def test_a_configuration_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SearchConfig(data="d", target=Target(remove_groups=1), **values)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        ({}, "cosine?hold=0.15"),
        ({"zero_at": 0.3}, "cosine?hold=0.3"),
        ({"zero_at": 1.0}, "cosine?hold=0.5"),
        ({"warmup_epochs": 1.0}, "cosine?hold=0.05556"),
        ({"warmup_epochs": 2.0}, "cosine?hold=0"),
        ({"schedule": "cosine"}, "cosine"),
    ],
)
def test_the_learning_rate_of_a_search_falls_once_the_groups_are_at_zero(given: dict[str, Any], schedule: str) -> None:
    assert SearchConfig.of(data="d", target=Target(remove_groups=1), **given).schedule == schedule


def test_unknown_fields_are_named() -> None:
    values = json.loads(SearchConfig(data="d", target=Target(remove_groups=1)).to_json())
    with pytest.raises(InputError, match="unknown configuration fields: colour, shape"):
        SearchConfig.from_json(json.dumps({**values, "shape": 1, "colour": 2}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"data": "d"}', '{"data": "d", "target": 3}', '{"target": {"uniform": 0.5}}']
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        SearchConfig.from_json(text)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        SearchConfig.read(tmp_path / "nowhere.json")
