"""Losses by name, and what an epoch is judged by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnx_asgnas.errors import InputError
from onnx_asgnas.specs import load_attribute

Loss: TypeAlias = Callable[["Tensor | tuple[Tensor, ...]", Tensor], Tensor]
"""Gives a scalar from the network's output (a tuple where it has several) and the target."""


def cross_entropy(output: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Mean cross entropy of logits [N, classes] and labels [N]."""
    return functional.cross_entropy(_only(output), target)


def mse(output: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Mean squared error of an output and a target of the same shape."""
    return functional.mse_loss(_only(output), target)


_LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}


def loss_named(name: str) -> Loss:
    """The loss of that name, or the one that `python:package.module:callable` names; raises InputError."""
    if name in _LOSSES:
        return _LOSSES[name]
    scheme, _, path = name.partition(":")
    if scheme != "python":
        choices = ", ".join(sorted(_LOSSES))
        raise InputError(f"there is no loss {name!r}", fix=f"Choose one of: {choices}, python:package.module:callable.")
    found = load_attribute(path, InputError)
    if not callable(found):
        raise InputError(f"{path} is not callable", fix="Name a function (output, target) → scalar tensor.")
    loss: Loss = found
    return loss


def correct(output: Tensor | tuple[Tensor, ...], target: Tensor) -> int | None:
    """How many of the labels [N] are the largest of their logits [N, classes]; None where these are no labels."""
    logits = output if isinstance(output, Tensor) else output[0]
    if target.is_floating_point() or target.ndim != 1 or logits.ndim != 2:
        return None
    return int((logits.argmax(dim=1) == target).sum())


def _only(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    if isinstance(output, torch.Tensor):
        return output
    raise InputError(
        f"the model has {len(output)} outputs, and this loss takes one",
        fix="Give a loss of your own: --loss python:package.module:callable.",
    )
