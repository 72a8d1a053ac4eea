"""Metrics over batches are those of all the data at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional

from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.training.losses import Objective, objective
from onnx_asgnas.training.metrics import Judge, metrics

torch.manual_seed(2)


def judged(
    loss: str, text: str, output: torch.Tensor, target: torch.Tensor, sizes: Sequence[int] = (3, 4)
) -> dict[str, float | None]:
    """The figures of data that comes in batches of these sizes, and the rest."""
    judge = Judge.of(objective(loss, inputs=("input_ids",), outputs=("y",)), text)
    for scores, labels in zip(
        output.split([*sizes, len(output) - sum(sizes)]), target.split([*sizes, len(target) - sum(sizes)]), strict=True
    ):
        judge.update(scores, {"input_ids": labels}, labels)
    return judge.values()


def test_top_one_and_top_five() -> None:
    scores, labels = torch.randn(20, 9), torch.randint(0, 9, (20,))
    labels[3] = -100
    scores[5] = math.nan
    kept = labels != -100
    right = scores.argmax(1) == labels
    right[5] = False
    among = (scores.topk(5, dim=1).indices == labels[:, None]).any(1)
    among[5] = False
    found = judged("cross_entropy", "top1,top5", scores, labels)
    assert found == {"top1": right[kept].sum() / 19, "top5": among[kept].sum() / 19}


def test_five_of_three_classes_are_all() -> None:
    found = judged("cross_entropy", "top5", torch.randn(20, 3), torch.randint(0, 3, (20,)))
    assert found == {"top5": 1.0}


def test_mean_intersection_over_union_is_of_the_whole_confusion_matrix() -> None:
    scores, labels = torch.randn(9, 4, 5, 6), torch.randint(0, 3, (9, 5, 6))  # class 3 never occurs, but is predicted
    labels[:, 0] = 255
    predicted, kept = scores.argmax(1), labels != 255
    each = []
    for c in range(4):
        both = ((predicted == c) & (labels == c) & kept).sum()
        either = (((predicted == c) | (labels == c)) & kept).sum()
        each.append(float(both / either))
    found = judged("pixel_cross_entropy", "", scores, labels)
    assert found["miou"] == pytest.approx(sum(each) / 4)
    assert found["pixel_accuracy"] == pytest.approx(float((predicted == labels)[kept].float().mean()))


def test_a_class_that_does_not_occur_has_no_part_in_the_mean() -> None:
    scores = torch.zeros(8, 3, 1, 1)
    scores[:, 1] = 1
    found = judged("pixel_cross_entropy", "miou", scores, torch.ones(8, 1, 1, dtype=torch.long))
    assert found == {"miou": 1.0}


def test_perplexity_weighs_tokens_and_not_batches() -> None:
    scores, ids = torch.randn(9, 6, 7), torch.randint(0, 7, (9, 6))
    expected = functional.cross_entropy(scores[:, :-1].transpose(1, 2), ids[:, 1:]).exp()
    found = judged("next_token", "", scores, ids, sizes=(1, 5))
    assert found["perplexity"] == pytest.approx(float(expected), rel=1e-5)
    assert set(found) == {"perplexity", "top1"}


def test_values_and_binary_labels() -> None:
    output, target = torch.randn(10, 3), torch.randn(10, 3)
    assert judged("mse", "", output, target)["mse"] == pytest.approx(float(functional.mse_loss(output, target)))
    assert judged("l1", "", output, target)["mae"] == pytest.approx(float(functional.l1_loss(output, target)))
    labels = torch.randint(0, 2, (10, 3))
    right = ((output > 0) == (labels > 0)).float().mean()
    assert judged("bce_with_logits", "", output, labels)["binary_accuracy"] == pytest.approx(float(right))


def test_metrics_of_several_outputs_have_their_names() -> None:
    goal = objective("a=cross_entropy,b=mse?target=value", outputs=("a", "b"))
    judge = Judge.of(goal)
    judge.update((torch.eye(3), torch.zeros(3)), {}, {"label": torch.arange(3), "value": torch.ones(3)})
    assert judge.values() == {"a.top1": 1.0, "b.mse": 1.0}
    assert judge.accuracy() == 1.0
    only = Judge.of(goal, "b=mae")
    only.update((torch.eye(3), torch.zeros(3)), {}, {"label": torch.arange(3), "value": torch.ones(3)})
    assert only.values() == {"mae": 1.0}
    assert only.accuracy() is None
    with pytest.raises(InputError, match="no loss is on an output 'c'"):
        Judge.of(goal, "c=mse")


def test_a_loss_of_ones_own_is_judged_where_targets_are_labels() -> None:
    goal = Objective.of(lambda output, target: output.sum())
    judge = Judge.of(goal)
    judge.update(torch.eye(3), {}, torch.arange(3))
    assert judge.values() == {"top1": 1.0}
    judge = Judge.of(goal)
    judge.update(torch.eye(3), {}, torch.ones(3))
    assert judge.values() == {}
    with pytest.raises(DataError):
        Judge.of(goal, "top1").update(torch.eye(3), {}, torch.ones(3))


def test_what_is_no_number_is_none() -> None:
    assert judged("cross_entropy", "top1", torch.randn(8, 3), torch.full((8,), -100)) == {"top1": None}


def test_metrics_have_names() -> None:
    assert "miou" in metrics()
    with pytest.raises(InputError, match="there is no metric 'f1'"):
        Judge.of(objective("mse"), "f1")
