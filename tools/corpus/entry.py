"""What the corpus says of one network: how to build it, what it reads, and which sizes are open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Axes = Mapping[int, str]
BATCH: Axes = {0: "batch"}
TOKENS: Axes = {0: "batch", 1: "sequence"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Inputs by the names of the parameters of `forward`, and the open axes of each."""

    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Axes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A network of the corpus.

    `build` takes how attention is computed ("eager" or "sdpa", for those that have a choice) and gives the module with
    random weights. `millions` of parameters, roughly, order the exports; `rank` puts some in front.
    """

    name: str
    family: str
    build: Callable[[str], nn.Module]
    example: Callable[[], Example]
    millions: float
    rank: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


def image(size: int, *, channels: int = 3, batch: int = 2, name: str = "x") -> Callable[[], Example]:
    """Square images, [N, C, size, size], of which the batch is open."""

    def make() -> Example:
        offset = torch.randn(batch, channels, 1, 1)  # noise alone is the same for every image once it is averaged
        return Example(inputs={name: offset + torch.randn(batch, channels, size, size)}, axes={name: BATCH})

    return make


def numbers(*shape: int, name: str, axes: Axes = BATCH) -> Callable[[], Example]:
    """One input of normally distributed numbers."""
    return lambda: Example(inputs={name: torch.randn(*shape)}, axes={name: axes})


def tokens(vocabulary: int, *, length: int = 16, batch: int = 2, decoder: bool = False) -> Callable[[], Example]:
    """Token ids and a mask of ones, [N, T]; for an encoder with a decoder the decoder's ids too, of another length."""

    def make() -> Example:
        inputs = {
            "input_ids": torch.randint(4, vocabulary, (batch, length)),
            "attention_mask": torch.ones(batch, length, dtype=torch.int64),
        }
        axes = dict.fromkeys(inputs, TOKENS)
        if decoder:
            inputs["decoder_input_ids"] = torch.randint(4, vocabulary, (batch, length - 5))
            axes["decoder_input_ids"] = {0: "batch", 1: "decoder_sequence"}
        return Example(inputs=inputs, axes=axes)

    return make


class Tensors(nn.Module):
    """The output of a module that gives a dictionary or an object of outputs, as a flat tuple of its tensors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def flat(self, output: Any) -> Any:
        """The tensors of an output, in order; a single one alone."""
        values = output.values() if isinstance(output, Mapping) else output
        found = [value for value in values if isinstance(value, Tensor)]
        return found[0] if len(found) == 1 else tuple(found)
