"""Losses on several outputs, parts of a batch that add up, and a teacher."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.specs import parse_spec
from onnx_asgnas.training.losses import Objective, distilled, lesson, objective

torch.manual_seed(1)
INPUTS = {"x": torch.randn(8, 3)}
LOGITS, LABELS = torch.randn(8, 5), torch.tensor([0, 4, -100, 1, 3, 2, -100, 0])


def test_losses_of_two_outputs_are_weighed() -> None:
    goal = objective("logits=cross_entropy?label_smoothing=0.1:1,aux=mse?target=depth:0.4", outputs=("aux", "logits"))
    assert goal.targets == ("label", "depth")
    depth, aux = torch.randn(8, 2), torch.randn(8, 2)
    found = goal((aux, LOGITS), INPUTS, {"label": LABELS, "depth": depth})
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1) + 0.4 * functional.mse_loss(aux, depth)
    assert float(found) == pytest.approx(float(expected))
    with pytest.raises(DataError, match="there are no targets 'depth'"):
        goal((aux, LOGITS), INPUTS, {"label": LABELS})


def test_a_loss_without_an_output_is_on_the_logits() -> None:
    goal = objective("cross_entropy", outputs=("hidden", "logits"))
    expected = float(functional.cross_entropy(LOGITS, LABELS))
    assert float(goal((torch.zeros(8, 9), LOGITS), INPUTS, LABELS)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "outputs", "message"),
    [
        ("hinge", ("y",), "there is no loss 'hinge'"),
        ("cross_entropy?smoothing=1", ("y",), "has no argument 'smoothing'"),
        ("cross_entropy?label_smoothing=2", ("y",), "label_smoothing is 2"),
        ("python:torch:__version__", ("y",), "is not callable"),
        ("mse", ("a", "b"), r"the model has 2 outputs \(a, b\), and mse takes one"),
        ("c=mse", ("a", "b"), "the model has no output 'c'"),
        ("", ("y",), "names nothing"),
        ("mse,", ("y",), "names nothing"),
    ],
)
def test_what_is_no_objective(text: str, outputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        objective(text, outputs=outputs)


def test_a_function_of_ones_own_is_a_mean_over_samples() -> None:
    goal = objective("python:torch.nn.functional:l1_loss:2", outputs=("y",))
    target = torch.randn(8, 5)
    assert float(goal(LOGITS, INPUTS, target)) == pytest.approx(2 * float(functional.l1_loss(LOGITS, target)))

    def with_inputs(output: torch.Tensor, target: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["x"].mean() + 0 * output.sum()

    assert float(Objective.of(with_inputs)(LOGITS, INPUTS, target)) == pytest.approx(float(INPUTS["x"].mean()))
    with pytest.raises(InputError, match=r"the loss gives a tensor of shape \[8, 5\]"):
        Objective.of(lambda output, target: output - target)(LOGITS, INPUTS, target)
    with pytest.raises(InputError, match="the loss gives float"):
        Objective.of(lambda output, target: 1.0)(LOGITS, INPUTS, target)


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 7), (4,)])
def test_shares_of_uneven_parts_add_up_to_the_loss_and_its_gradient(cuts: tuple[int, ...]) -> None:
    goal = objective("a=cross_entropy:1,b=mse?target=value:0.3", outputs=("a", "b"))
    weight = torch.randn(3, 5, requires_grad=True)
    targets = {"label": LABELS, "value": torch.randn(8, 5)}

    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ weight, (x @ weight).tanh()

    whole = goal(outputs(INPUTS["x"]), INPUTS, targets)
    (expected,) = torch.autograd.grad(whole, weight)

    places = [0, *cuts, 8]
    parts = [
        ({"x": INPUTS["x"][a:b]}, {name: target[a:b] for name, target in targets.items()})
        for a, b in itertools.pairwise(places)
    ]
    counts = sum(goal.counts(*part) for part in parts)
    assert isinstance(counts, torch.Tensor)
    assert counts.tolist() == [6, 40]
    shares = [goal.share(outputs(inputs["x"]), inputs, target, counts) for inputs, target in parts]
    for share in shares:
        share.backward()
    assert sum(float(share.detach()) for share in shares) == pytest.approx(float(whole.detach()))
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected)


def taught(text: str, loss: str = "cross_entropy") -> tuple[Objective, torch.Tensor]:
    teacher = torch.randn(8, 5)
    hard = objective(loss, outputs=("y",))
    goal = distilled(
        hard, lambda inputs: (teacher[: len(inputs["x"])],), lesson(parse_spec(text, InputError)),
        outputs=("y",), taught_outputs=("z",),
    )  # fmt: skip
    return goal, teacher


def test_a_teacher_adds_the_divergence_at_its_temperature() -> None:
    goal, teacher = taught("self?temperature=2&weight=0.75")
    soft = 4 * functional.kl_div(
        (LOGITS / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="batchmean", log_target=False
    )
    hard = functional.cross_entropy(LOGITS, LABELS)
    assert float(goal(LOGITS, INPUTS, LABELS)) == pytest.approx(float(0.25 * hard + 0.75 * soft), rel=1e-5)
    assert float(goal.hard(LOGITS, INPUTS, LABELS)) == pytest.approx(float(hard))
    assert goal.targets == ("label",)


def test_a_teacher_of_features_gives_the_squared_difference() -> None:
    goal, teacher = taught("self?kind=features&weight=1")
    assert float(goal(LOGITS, INPUTS, LABELS)) == pytest.approx(float(functional.mse_loss(LOGITS, teacher)))


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    goal, teacher = taught("self?weight=1")
    assert float(goal(teacher, INPUTS, LABELS)) == pytest.approx(0, abs=1e-6)


def test_padding_teaches_nothing() -> None:
    student, teacher = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    how = lesson(parse_spec("self?weight=1&temperature=1", InputError))
    goal = distilled(
        objective("next_token", inputs=("input_ids",), outputs=("y",)), lambda inputs: (teacher,), how,
        outputs=("y",), taught_outputs=("y",),
    )  # fmt: skip
    inputs = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "attention_mask": mask}
    found = goal(student, inputs, inputs["input_ids"])
    each = (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum(-1)
    assert float(found) == pytest.approx(float((each[0, :2].mean() + each[1].mean()) / 2), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self?kind=style", "kind is 'style'"),
        ("self?weight=0", "weight is 0"),
        ("self?temperature=0", "temperature is 0"),
        ("self?heat=3", "has no argument 'heat'"),
        ("self?output=w", "the model has no output 'w'"),
    ],
)
def test_what_is_no_lesson(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        taught(text)


def test_a_teacher_of_another_shape_is_named() -> None:
    goal, _ = taught("self")
    with pytest.raises(DataError, match="the teacher's output is of shape"):
        goal(torch.randn(8, 6), INPUTS, LABELS)
