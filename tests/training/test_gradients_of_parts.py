"""A batch in parts has the loss and the gradients of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnx_asgnas import models
from onnx_asgnas.errors import InputError
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.data import Batch
from onnx_asgnas.training.distributed import Processes, rows_of
from onnx_asgnas.training.events import Timing
from onnx_asgnas.training.gradients import Parts
from onnx_asgnas.training.losses import objective

pytestmark = pytest.mark.usefixtures("engine")

ROWS = 10


@pytest.fixture(scope="module")
def module() -> OnnxModule:
    return OnnxModule(models.build("demosupnet", width=2, seed=1), threads=1, freeze_bn=True).train()


@pytest.fixture(scope="module")
def batch() -> Batch:
    random = np.random.default_rng(0)
    images = random.standard_normal((ROWS, 1, 28, 28)).astype(np.float32)
    labels = random.integers(0, 10, ROWS)
    labels[[0, 1, 2, 8]] = -100  # so that a mean of the parts' means is not the mean of the whole
    return {"input": torch.from_numpy(images)}, torch.from_numpy(labels)


def gradients(module: OnnxModule) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1) for p in module.parameters() if p.grad is not None]).clone()


@pytest.mark.parametrize("size", [1, 3, 5, 10, 64])
def test_micro_batches_add_up_to_the_whole(module: OnnxModule, batch: Batch, size: int) -> None:
    loss = objective("cross_entropy?ignore_index=-100")
    whole, _ = Parts().gradients(module, loss, batch, Timing())
    expected = gradients(module)
    found, _ = Parts(micro_batch=size).gradients(module, loss, batch, Timing())
    assert found == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(gradients(module), expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_gradients_of_the_step_before_are_gone(module: OnnxModule, batch: Batch) -> None:
    loss = objective("cross_entropy")
    Parts().gradients(module, loss, batch, Timing())
    first = gradients(module)
    Parts().gradients(module, loss, batch, Timing())
    assert torch.equal(gradients(module), first)


@pytest.mark.parametrize("count", [1, 2, 3, 7, ROWS])
def test_every_row_is_in_the_part_of_one_process(batch: Batch, count: int) -> None:
    parts = [Processes(rank, count).part(batch) for rank in range(count)]
    assert torch.equal(torch.cat([inputs["input"] for inputs, _ in parts]), batch[0]["input"])
    sizes = [len(targets) for _, targets in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_smaller_than_the_processes_is_refused(batch: Batch) -> None:
    with pytest.raises(InputError, match="a batch of 10 cannot be shared among 11 processes"):
        Processes(0, 11).part(batch)


def test_rows_of_targets_by_name() -> None:
    inputs, targets = rows_of(({"x": torch.arange(4)}, {"a": torch.arange(4), "b": torch.ones(4, 2)}), 1, 3)
    assert isinstance(targets, dict)
    assert inputs["x"].tolist() == targets["a"].tolist() == [1, 2]
    assert targets["b"].shape == (2, 2)
