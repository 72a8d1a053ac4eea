"""What a network is judged by on data that it did not train on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.data import Split
from onnx_asgnas.training.losses import Loss, correct

_EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a model gives on a split: the mean loss, and the fraction of labels that are right (None: no labels)."""

    loss: float
    accuracy: float | None


def evaluate(module: OnnxModule, split: Split, loss: Loss, batch_size: int = _EVALUATION_BATCH) -> Evaluation:
    """Loss and accuracy of a module on a split, in inference form; the module's mode is left as it was."""
    training = module.training
    module.eval()
    total, right, count, labels = 0.0, 0, 0, True
    try:
        with torch.no_grad():
            for inputs, target in split.batches(batch_size):
                output = module(**inputs)
                total += float(loss(output, target)) * len(target)
                found = correct(output, target)
                labels = labels and found is not None
                right += found or 0
                count += len(target)
    finally:
        module.train(training)
    return Evaluation(loss=total / max(count, 1), accuracy=right / max(count, 1) if labels and count else None)
