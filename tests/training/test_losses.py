from __future__ import annotations

import pytest
import torch

from onnx_asgnas.errors import InputError
from onnx_asgnas.training.losses import correct, loss_named


def test_cross_entropy_is_torchs() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    assert torch.equal(loss_named("cross_entropy")(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_mse_is_torchs() -> None:
    output, target = torch.randn(5, 3), torch.randn(5, 3)
    assert torch.equal(loss_named("mse")(output, target), torch.nn.functional.mse_loss(output, target))


def test_a_loss_of_ones_own() -> None:
    assert loss_named("python:torch.nn.functional:l1_loss") is torch.nn.functional.l1_loss


@pytest.mark.parametrize(
    ("name", "message"), [("hinge", "there is no loss 'hinge'"), ("python:torch:__version__", "is not callable")]
)
def test_what_is_no_loss(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loss_named(name)


def test_several_outputs_need_a_loss_of_ones_own() -> None:
    with pytest.raises(InputError, match="the model has 2 outputs"):
        loss_named("mse")((torch.zeros(1), torch.zeros(1)), torch.zeros(1))


def test_correct_counts_labels_and_nothing_else() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert correct(logits, torch.tensor([1, 1])) == 1
    assert correct((logits, logits), torch.tensor([1, 0])) == 2
    assert correct(logits, torch.randn(2, 2)) is None
    assert correct(torch.randn(2, 2, 4), torch.zeros(2, dtype=torch.long)) is None
