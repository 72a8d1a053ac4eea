"""The last phase on the compact network: the same training as on the whole one, at less cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnx_asgnas import models
from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.evaluation import verify
from onnx_asgnas.pipeline import rebuilding
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.surgery import construct
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import ArraySplit, Dataset
from onnx_asgnas.training.events import Event
from onnx_asgnas.training.h2spg import H2SPG, Phase
from onnx_asgnas.training.loop import Loop, loss_probe, steps_of
from onnx_asgnas.training.losses import objective

pytestmark = pytest.mark.usefixtures("engine")

EPOCHS, BATCH, ROWS = 3, 8, 48
CASES = {
    "erase": ("erase", Target(remove_groups=2), "sgd"),
    "prune": ("prune", Target(keep_macs=0.5), "adamw"),
    "joint": ("joint", Target(keep_macs=0.4), "sgd"),
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, ROWS)
    images = random.standard_normal((ROWS, 1, 28, 28)) + labels[:, None, None, None]
    split = ArraySplit.from_arrays({"input": images.astype(np.float32)}, labels)
    return Dataset(name="made up", train=split, test=split.take(slice(0, 16)), classes=10)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[SearchSpace, SearchConfig]:
    mode, target, variant = CASES[request.param]
    config = SearchConfig(data="", target=target, mode=mode, variant=variant, lr=0.01, threads=1)
    model = models.build("demosupnet", width=4, seed=1)
    return analyze(model, mode=mode), config


def searching(
    space: SearchSpace, config: SearchConfig, dataset: Dataset, folder: Path | None = None, *, narrow: bool = True
) -> Loop:
    assert space.graph is not None
    module = OnnxModule(space.graph, threads=1)
    loss = objective("cross_entropy")
    optimizer = H2SPG(
        module,
        space,
        target=config.target,
        total_steps=steps_of(dataset, BATCH, EPOCHS),
        variant=config.variant,
        lr=config.lr,
        momentum=0.9 if config.variant == "sgd" else 0.0,
        weight_decay=1e-2,
        evaluate=loss_probe(module, dataset.train, loss, 0),
        select_at=0.1,
        zero_at=0.35,
    )
    options: dict[str, Any] = {"rebuild": rebuilding(space, config)} if narrow else {}
    checkpoints = Checkpoints(folder) if folder is not None else None
    return Loop(module, optimizer, dataset, loss, EPOCHS, BATCH, checkpoints=checkpoints, **options)


def test_the_compact_network_trains_as_the_whole_one(case: tuple[SearchSpace, SearchConfig], dataset: Dataset) -> None:
    whole, narrow = (searching(*case, dataset, narrow=way) for way in (False, True))
    working: list[int] = []
    narrow.on_event = lambda event: working.append(narrow.working.flat.numel())
    expected, found = whole.run(), narrow.run()
    assert working[0] == narrow.module.flat.numel() > working[-1]
    assert [e.loss for e in found] == pytest.approx([e.loss for e in expected], rel=1e-2)
    assert [e.accuracy for e in found] == pytest.approx([e.accuracy for e in expected], abs=0.15)
    assert isinstance(narrow.optimizer, H2SPG)
    assert narrow.optimizer.phase is Phase.CONVERGE

    space = case[0]
    trained = narrow.module.to_onnx()
    assert verify(trained, construct(trained, space)).passed
    zeros = [name for name, p in whole.module.named_parameters() if not p.any()]
    assert zeros == [name for name, p in narrow.module.named_parameters() if not p.any()]


def test_a_run_killed_in_the_last_phase_goes_on_to_the_same_bits(
    case: tuple[SearchSpace, SearchConfig], dataset: Dataset, tmp_path: Path
) -> None:
    whole = searching(*case, dataset)
    whole.run()

    class Killed(Exception):
        pass

    def kill(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            raise Killed

    first = searching(*case, dataset, tmp_path)
    first.checkpoint_every = 0.0
    first.on_event = kill
    with pytest.raises(Killed):
        first.run()
    assert first.working is not first.module
    second = searching(*case, dataset, tmp_path)
    second.run()
    assert torch.equal(second.module.flat, whole.module.flat)
    for (name, mine), (_, other) in zip(second.module.named_buffers(), whole.module.named_buffers(), strict=True):
        assert torch.equal(mine, other), name
    states = [{key: value for key, value in loop.optimizer.state_dict()["state"].items()} for loop in (second, whole)]
    assert states[0].keys() == states[1].keys()
    for key, mine in states[0].items():
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(states[1][key][k])) for k, v in mine.items())


def test_what_does_not_train_does_not_train_in_the_compact_network(dataset: Dataset) -> None:
    space = analyze(models.build("demosupnet", width=4, seed=1), mode="erase")
    config = SearchConfig(data="", target=Target(remove_groups=2), threads=1)
    loop = searching(space, config, dataset)
    frozen = [name for name, _ in loop.module.named_parameters()][-2:]
    for name in frozen:
        loop.module.get_parameter(name).requires_grad_(False)
    before = {name: loop.module.get_parameter(name).clone() for name in frozen}
    loop.run()
    assert all(torch.equal(loop.module.get_parameter(name), value) for name, value in before.items())
