"""What a data source gives: splits that yield batches of tensors by input name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.generic]"
Targets: TypeAlias = "torch.Tensor | dict[str, torch.Tensor]"
"""A tensor, or several by name."""
Batch: TypeAlias = "tuple[dict[str, torch.Tensor], Targets]"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """An input that the data must feed: its name, its shape (None: an open dimension), its element type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[np.generic]

    def __str__(self) -> str:
        return describe(self.name, self.shape, self.dtype)


def model_inputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs of a model that are no initializers, in its order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        ModelInput(
            name=value.name,
            shape=tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim),
            dtype=np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in model.graph.input
        if value.name not in weights
    )


class Split(Protocol):
    """A part of a data set (training, test)."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def steps(self, batch_size: int, *, shuffle: bool) -> int:
        """Number of batches that `batches` yields."""
        ...

    def batches(self, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0) -> Iterator[Batch]:
        """Tensors by input name, and the targets; the same (seed, epoch) gives the same batches.

        Shuffled batches are for training and all of one size: an incomplete last one is left out, unless it is the
        only one. In order, every sample comes.
        """
        ...


class ArraySplit:
    """A split that lies in memory whole; batches are one indexing operation per array."""

    def __init__(self, inputs: Mapping[str, torch.Tensor], targets: Targets) -> None:
        self.inputs = dict(inputs)
        self.targets = targets

    @classmethod
    def from_arrays(cls, inputs: Mapping[str, Array], targets: Array | Mapping[str, Array]) -> ArraySplit:
        """A split of numpy arrays, whose memory it shares where it can."""
        converted: Targets
        if isinstance(targets, Mapping):
            converted = {name: as_tensor(array) for name, array in targets.items()}
        else:
            converted = as_tensor(targets)
        return cls({name: as_tensor(array) for name, array in inputs.items()}, converted)

    def take(self, samples: NDArray[np.intp] | slice) -> ArraySplit:
        """The split of some of the samples; a slice shares their memory."""
        chosen = samples if isinstance(samples, slice) else torch.from_numpy(samples)
        return ArraySplit(*self._each(lambda tensor: tensor[chosen]))

    def __len__(self) -> int:
        return samples_in(self.inputs, self.targets)

    def steps(self, batch_size: int, *, shuffle: bool) -> int:
        """Number of batches that `batches` yields."""
        whole, rest = divmod(len(self), batch_size)
        return whole + (rest > 0 and (whole == 0 or not shuffle))

    def batches(self, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0) -> Iterator[Batch]:
        """See `Split.batches`. Batches in order are views of the arrays, not copies."""
        order = None
        if shuffle:
            order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(self)))
        for step in range(self.steps(batch_size, shuffle=shuffle)):
            start, end = step * batch_size, (step + 1) * batch_size
            if order is None:
                yield self._each(lambda tensor, part=slice(start, end): tensor[part])  # type: ignore[misc]
            else:
                yield self._each(lambda tensor, part=order[start:end]: tensor.index_select(0, part))  # type: ignore[misc]

    def _each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """A function of every array of inputs and targets."""
        targets = self.targets
        changed = {k: function(v) for k, v in targets.items()} if isinstance(targets, dict) else function(targets)
        return {name: function(tensor) for name, tensor in self.inputs.items()}, changed


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Training and test data; `test` is the validation part where the source was asked to hold one out.

    `classes` is the number of classes that the labels stand for, None where the targets are no labels.
    """

    name: str
    train: Split
    test: Split | None
    classes: int | None = None


def samples_in(inputs: Mapping[str, torch.Tensor], targets: Targets) -> int:
    """How many samples a batch has."""
    if isinstance(targets, torch.Tensor):
        return len(targets)
    return len(next(iter((*targets.values(), *inputs.values()))))


def as_tensor(array: Array) -> torch.Tensor:
    """The array as a contiguous tensor; a read-only one is copied, since torch would write to it."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def describe(name: str, shape: tuple[int | None, ...], dtype: np.dtype[np.generic]) -> str:
    """A tensor as people write it: `x: float32[N,1,28,28]`."""
    sizes = ["N" if axis == 0 else "?" if d is None else str(d) for axis, d in enumerate(shape)]
    return f"{name}: {dtype.name}[{','.join(sizes)}]"
