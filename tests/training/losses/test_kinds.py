"""Every kind of loss against torch's own, and how it counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from onnx_asgnas.errors import DataError, InputError
from onnx_asgnas.training.losses import objective

torch.manual_seed(0)
LOGITS, LABELS = torch.randn(6, 5), torch.tensor([0, 4, 2, 1, 3, 2])
TOKENS, IDS = torch.randn(2, 7, 11), torch.randint(0, 11, (2, 7))
PIXELS, MAP = torch.randn(2, 4, 6, 8), torch.randint(0, 4, (2, 6, 8))


def loss_of(text: str, output: torch.Tensor, target: torch.Tensor, **inputs: torch.Tensor) -> float:
    return float(objective(text, inputs=tuple(inputs))(output, inputs, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert loss_of(f"cross_entropy?label_smoothing={smoothing}", LOGITS, LABELS) == pytest.approx(float(expected))


def test_cross_entropy_leaves_out_what_is_ignored() -> None:
    labels = torch.tensor([0, 9, 2, 9, 3, 2])
    expected = functional.cross_entropy(LOGITS, labels, ignore_index=9)
    assert loss_of("cross_entropy?ignore_index=9", LOGITS, labels) == pytest.approx(float(expected))
    nothing = torch.full((6,), 9)
    assert loss_of("cross_entropy?ignore_index=9", LOGITS, nothing) == 0.0


def test_cross_entropy_takes_soft_labels() -> None:
    soft = torch.rand(6, 5).softmax(1)
    assert loss_of("cross_entropy", LOGITS, soft) == pytest.approx(float(functional.cross_entropy(LOGITS, soft)))


def test_cross_entropy_of_tokens_has_the_classes_last() -> None:
    labels = IDS.clone()
    labels[0, :3] = -100
    expected = functional.cross_entropy(TOKENS.transpose(1, 2), labels)
    assert loss_of("cross_entropy", TOKENS, labels) == pytest.approx(float(expected))
    soft = TOKENS.softmax(-1)
    expected = functional.cross_entropy(TOKENS.flatten(0, 1), soft.flatten(0, 1))
    assert loss_of("cross_entropy", TOKENS, soft) == pytest.approx(float(expected))


def test_cross_entropy_of_a_signal_has_the_classes_second() -> None:
    signal, labels = torch.randn(2, 4, 9), torch.randint(0, 4, (2, 9))
    expected = float(functional.cross_entropy(signal, labels))
    assert loss_of("cross_entropy", signal, labels) == pytest.approx(expected)
    square, labels = torch.randn(2, 4, 4), torch.randint(0, 4, (2, 4))
    expected = float(functional.cross_entropy(square, labels))
    assert loss_of("cross_entropy?axis=1", square, labels) == pytest.approx(expected)
    assert loss_of("cross_entropy", square, labels) != pytest.approx(expected)


def test_cross_entropy_of_pixels_resamples_the_logits_to_the_map() -> None:
    labels = MAP.clone()
    labels[:, 0] = 255
    expected = functional.cross_entropy(PIXELS, labels, ignore_index=255)
    assert loss_of("pixel_cross_entropy", PIXELS, labels) == pytest.approx(float(expected))
    larger = torch.randint(0, 4, (2, 24, 32))
    resampled = functional.interpolate(PIXELS, size=(24, 32), mode="bilinear", align_corners=False)
    expected = functional.cross_entropy(resampled, larger)
    assert loss_of("pixel_cross_entropy", PIXELS, larger) == pytest.approx(float(expected))


def test_the_next_token_is_told_from_the_ids_that_the_network_reads() -> None:
    mask = torch.ones_like(IDS)
    mask[0, 5:] = 0
    mask[1, :2] = 0
    labels = IDS[:, 1:].clone()
    labels[0, 4:] = -100
    labels[1, :2] = -100
    expected = functional.cross_entropy(TOKENS[:, :-1].transpose(1, 2), labels)
    found = loss_of("next_token", TOKENS, IDS, input_ids=IDS, attention_mask=mask)
    assert found == pytest.approx(float(expected))
    plain = functional.cross_entropy(TOKENS[:, :-1].transpose(1, 2), IDS[:, 1:])
    assert loss_of("next_token", TOKENS, IDS, input_ids=IDS) == pytest.approx(float(plain))


def test_next_token_says_what_it_cannot_tell() -> None:
    with pytest.raises(InputError, match="which of the inputs a, b holds the ids"):
        objective("next_token", inputs=("a", "b"))
    assert objective("next_token?target=b", inputs=("a", "b")).targets == ("b",)
    assert objective("next_token", inputs=("tokens",)).targets == ("tokens",)
    with pytest.raises(DataError, match="there is no mask 'pads'"):
        loss_of("next_token?mask=pads", TOKENS, IDS, input_ids=IDS)
    with pytest.raises(DataError, match="holds no logits for ids"):
        loss_of("next_token", LOGITS, IDS, input_ids=IDS)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("mse", functional.mse_loss),
        ("l1", functional.l1_loss),
        ("bce_with_logits", functional.binary_cross_entropy_with_logits),
    ],
)
def test_losses_of_values_are_torchs(name: str, function: object) -> None:
    output, target = torch.randn(5, 3), torch.rand(5, 3)
    assert loss_of(name, output, target) == pytest.approx(float(function(output, target)))  # type: ignore[operator]
    assert loss_of(name, output[:, :1], target[:, 0]) == pytest.approx(
        float(function(output[:, 0], target[:, 0]))  # type: ignore[operator]
    )


def test_values_of_another_shape_do_not_broadcast() -> None:
    with pytest.raises(DataError, match=r"targets of shape \[5, 1\] do not fit the output of shape \[5, 3\]"):
        loss_of("mse", torch.randn(5, 3), torch.randn(5, 1))


def test_binary_labels_may_be_integers() -> None:
    logits, labels = torch.randn(4, 3), torch.randint(0, 2, (4, 3))
    expected = functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert loss_of("bce_with_logits", logits, labels) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("text", "output", "target", "message"),
    [
        ("cross_entropy", LOGITS, IDS, "gives no class for labels"),
        ("cross_entropy", LOGITS, torch.rand(6), "gives no class for targets"),
        ("pixel_cross_entropy", LOGITS, LABELS, "holds no logits of pixels"),
    ],
)
def test_shapes_that_do_not_fit_are_named(text: str, output: torch.Tensor, target: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss_of(text, output, target)


def test_classes_are_told_from_the_shape_of_the_output() -> None:
    for text, shape, classes in (
        ("cross_entropy", (None, 10), 10),
        ("cross_entropy", (None, 21, 64, 64), 21),
        ("cross_entropy", (None, 16, 100), 100),
        ("cross_entropy?axis=1", (None, 16, 100), 16),
        ("next_token", (None, 16, 100), 100),
        ("mse", (None, 10), None),
    ):
        assert objective(text).classes([shape]) == classes, text
