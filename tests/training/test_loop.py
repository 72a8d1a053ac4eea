from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from onnx_asgnas import models
from onnx_asgnas.config import Target
from onnx_asgnas.errors import NonFiniteError
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import ArraySplit, Dataset
from onnx_asgnas.training.events import Event
from onnx_asgnas.training.h2spg import H2SPG
from onnx_asgnas.training.loop import Loop, loss_probe, steps_of
from onnx_asgnas.training.losses import Objective, objective
from onnx_asgnas.training.metrics import evaluate
from onnx_asgnas.training.schedules import learning_rate

pytestmark = pytest.mark.usefixtures("engine")

EPOCHS, BATCH = 4, 8
LOSS = objective("cross_entropy")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return analyze(models.build("stackedunets", width=2, seed=1))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 40)
    images = random.standard_normal((40, 1, 28, 28)).astype(np.float32) + labels[:, None, None, None].astype(np.float32)
    split = ArraySplit.from_arrays({"input": images}, labels.astype(np.int64))
    return Dataset(name="made up", train=split, test=split.take(slice(0, 20)), classes=10)


def searching(space: SearchSpace, dataset: Dataset, folder: Path | None = None, **options: object) -> Loop:
    assert space.graph is not None
    module = OnnxModule(space.graph, threads=1)
    optimizer = H2SPG(
        module,
        space,
        target=Target(remove_groups=2),
        total_steps=steps_of(dataset, BATCH, EPOCHS),
        lr=0.02,
        momentum=0.9,
        zero_at=0.3,
        evaluate=loss_probe(module, dataset.train, LOSS, 0),
    )
    checkpoints = Checkpoints(folder) if folder is not None else None
    return Loop(module, optimizer, dataset, LOSS, EPOCHS, BATCH, checkpoints=checkpoints, **options)  # type: ignore[arg-type]


def test_a_run_ends_with_the_target_at_zero_and_tells_of_its_phases(space: SearchSpace, dataset: Dataset) -> None:
    events: list[Event] = []
    loop = searching(space, dataset, on_event=events.append)
    history = loop.run()
    assert [event.epoch for event in history] == [1, 2, 3, 4]
    assert [event.phase for event in events if event.kind == "phase"] == ["hybrid", "converge"]
    assert history[-1].step == loop.total_steps == 20
    assert history[-1].groups_at_zero == history[-1].groups_chosen > 0
    assert history[-1].loss < history[0].loss
    assert history[-1].lr < 0.02 / 50
    assert isinstance(loop.optimizer, H2SPG)
    assert loop.optimizer.selection is not None
    assert loop.optimizer.selection.removed == 2


@pytest.mark.parametrize(
    ("stop", "how"),
    [(3, signal.SIGINT), (4, signal.SIGINT), (5, signal.SIGTERM), (7, signal.SIGINT), (13, signal.SIGTERM)],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    space: SearchSpace, dataset: Dataset, tmp_path: Path, stop: int, how: signal.Signals
) -> None:
    whole = searching(space, dataset)
    whole.run()

    first = searching(space, dataset, tmp_path)
    step = first.optimizer.step

    def interrupting(*args: object) -> object:
        if first._step == stop:
            signal.raise_signal(how)
        return step(*args)

    first.optimizer.step = interrupting  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert first._step == stop + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    second = searching(space, dataset, tmp_path)
    history = second.run()

    assert torch.equal(second.module.flat, whole.module.flat)
    for name, buffer in whole.module.named_buffers():
        assert torch.equal(dict(second.module.named_buffers())[name], buffer), name
    assert [event.loss for event in history] == [event.loss for event in whole.history]


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_last_checkpoint(
    space: SearchSpace, dataset: Dataset, tmp_path: Path
) -> None:
    loop = searching(space, dataset, tmp_path)
    loop.loss = Objective.of(
        lambda output, target: cross_entropy(output, target) * (math.nan if loop._step == 6 else 1)
    )
    with pytest.raises(NonFiniteError, match="the loss is nan at step 7 of 20") as caught:
        loop.run()
    assert caught.value.step == 7
    state = Checkpoints(tmp_path).newest()
    assert state is not None
    assert state["step"] == 5


def test_a_weight_that_is_no_number_is_never_saved(space: SearchSpace, dataset: Dataset, tmp_path: Path) -> None:
    loop = searching(space, dataset, tmp_path)
    step = loop.optimizer.step

    def spoiling(*args: object) -> object:
        result = step(*args)
        if loop._step == 9:
            with torch.no_grad():
                loop.module.flat[0] = math.inf
        return result

    loop.optimizer.step = spoiling  # type: ignore[method-assign, assignment]
    with pytest.raises(NonFiniteError):
        loop.run()
    state = Checkpoints(tmp_path).newest()
    assert state is not None
    assert state["step"] == 5


def test_evaluate_gives_what_torch_gives_and_leaves_the_mode(space: SearchSpace, dataset: Dataset) -> None:
    assert space.graph is not None
    assert dataset.test is not None
    module = OnnxModule(space.graph, threads=1)
    module.train()
    found = evaluate(module, dataset.test, LOSS, batch_size=6)
    assert module.training
    module.eval()
    (inputs, target), *_ = dataset.test.batches(100)
    with torch.no_grad():
        output = module(**inputs)
    assert found.loss == pytest.approx(float(cross_entropy(output, target)), rel=1e-5)
    assert found.accuracy == pytest.approx(float((output.argmax(1) == target).float().mean()))


def test_the_loss_probe_measures_the_same_batches_each_time(space: SearchSpace, dataset: Dataset) -> None:
    assert space.graph is not None
    module = OnnxModule(space.graph, threads=1)
    probe = loss_probe(module, dataset.train, LOSS, seed=3)
    assert probe() == probe()


@pytest.mark.parametrize(
    ("samples", "training_batch", "taken"), [(16, 32, [16]), (24, 1, [8, 8, 8]), (1024, 1, [8, 8, 8, 8])]
)
def test_the_loss_probe_takes_so_many_samples(
    samples: int, training_batch: int, taken: list[int], space: SearchSpace, dataset: Dataset
) -> None:
    assert space.graph is not None
    seen = []

    class Counting:
        def hard(self, outputs: object, inputs: object, targets: torch.Tensor) -> float:
            seen.append(len(targets))
            return 0.0

    module = OnnxModule(space.graph, threads=1)
    counting: Any = Counting()
    loss_probe(module, dataset.train, counting, 0, training_batch=training_batch, samples=samples)()
    assert seen == taken


def test_the_test_data_are_evaluated_as_often_as_asked_and_at_the_end(space: SearchSpace, dataset: Dataset) -> None:
    told: list[Event] = []
    each = searching(space, dataset)
    rarely = searching(space, dataset, test_every=3, on_event=told.append)
    of_each, of_rarely = each.run(), rarely.run()
    assert [event.test_loss for event in of_rarely] == [None, None, of_each[2].test_loss, of_each[3].test_loss]
    assert [event.metrics for event in of_rarely] == [{}, {}, of_each[2].metrics, of_each[3].metrics]
    for name, tensor in each.module.state_dict().items():
        assert torch.equal(tensor, rarely.module.state_dict()[name])
    samples = {event.step: event.accuracy for event in told if event.kind == "sample"}
    assert samples[14] is None and samples[16] == of_each[2].accuracy, "between epochs the last figure stands"


def test_a_plain_optimiser_has_one_phase(space: SearchSpace, dataset: Dataset) -> None:
    assert space.graph is not None
    module = OnnxModule(space.graph, threads=1)
    loop = Loop(
        module,
        torch.optim.SGD(module.parameters(), lr=0.01),
        dataset,
        LOSS,
        1,
        BATCH,
        schedule=learning_rate("constant"),
    )
    (event,) = loop.run()
    assert event.phase == "training"
    assert event.lr == 0.01
    assert loop.timing.forward > 0
