"""Batches from the user's own Python code: `python:package.module:callable?argument=value`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch

from onnx_asgnas.errors import AsgnasError, DataError
from onnx_asgnas.specs import call, load_attribute, working_directory_on_path
from onnx_asgnas.training.data.dataset import Array, Batch, Dataset, as_tensor, samples_in
from onnx_asgnas.training.data.registry import DataRequest, register

_FORM = (
    "Yield (inputs, target): a dict of arrays by input name, [N, …] each, and an array of N targets, "
    "or a dict of them by name."
)


@register("python")
def open_stream(location: str, request: DataRequest, **arguments: Any) -> Dataset:
    """What a callable gives: an iterable of batches (inputs by name, target), arrays or tensors.

    The callable is asked for `split="train"` and, if it has a parameter `split`, for `split="test"` too; without one
    there is no test data. Parameters `batch_size`, `shuffle`, `seed` and `epoch` are passed if it has them. It is
    called for each epoch anew if it has `epoch`, or gives an iterator (which ends); another iterable, such as a
    DataLoader, is iterated again. Every batch is checked when it comes. The sizes of the batches are the stream's.
    """
    if not location:
        raise DataError("python names no callable", fix="Write python:package.module:callable.")
    found = load_attribute(location, DataError)
    if not callable(found):
        raise DataError(f"python:{location} is of type {type(found).__name__}, not a callable", fix=_FORM)
    offered = _parameters(found) - set(arguments)
    train = StreamSplit(location, found, arguments, offered, "train", request)
    test = StreamSplit(location, found, arguments, offered, "test", request) if "split" in offered else None
    train.first_batch()
    return Dataset(name=f"python:{location}", train=train, test=test, classes=request.classes)


class StreamSplit:
    """A split whose batches a callable makes; its length is found by running through it once."""

    def __init__(
        self,
        location: str,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        offered: set[str],
        split: str,
        request: DataRequest,
    ) -> None:
        self._name = f"python:{location}"
        self._function = function
        self._arguments = dict(arguments)
        self._offered = offered
        self._split = split
        self._request = request
        self._counts: dict[tuple[int, bool], tuple[int, int]] = {}
        self._made: dict[tuple[int, bool], Iterable[Any]] = {}

    def __len__(self) -> int:
        known = next(iter(self._counts.values()), None) or self._count(1, shuffle=False)
        return known[1]

    def steps(self, batch_size: int, *, shuffle: bool) -> int:
        """Number of batches: what the iterable says, else found by running through it once."""
        known = self._counts.get((batch_size, shuffle))
        if known is None:
            made = self._iterable(batch_size, shuffle, 0, 0)
            if isinstance(made, Sized):
                with contextlib.suppress(TypeError):  # a DataLoader over a stream has a __len__ that refuses
                    return len(made)
            known = self._count(batch_size, shuffle=shuffle)
        return known[0]

    def batches(self, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0) -> Iterator[Batch]:
        """The stream's batches, each checked against the model; a DataError says which one is amiss, and why."""
        step = samples = 0
        for item in self._run(batch_size, shuffle, seed, epoch):
            batch = self._checked(item, step)
            yield batch
            step += 1
            samples += samples_in(*batch)
        if step == 0:
            raise DataError(f"{self._name} gives no batch for {self._split}", fix=_FORM, split=self._split)
        self._counts[batch_size, shuffle] = (step, samples)

    def first_batch(self) -> Batch:
        """One batch, checked: what is wrong with a stream should show before the training starts."""
        return next(self.batches(1))

    def _count(self, batch_size: int, *, shuffle: bool) -> tuple[int, int]:
        for _ in self.batches(batch_size, shuffle=shuffle):
            pass
        return self._counts[batch_size, shuffle]

    def _run(self, batch_size: int, shuffle: bool, seed: int, epoch: int) -> Iterator[Any]:
        """The callable's items; its own exceptions become DataError."""
        try:
            with working_directory_on_path():
                yield from self._iterable(batch_size, shuffle, seed, epoch)
        except AsgnasError:
            raise
        except Exception as problem:  # the user's code
            raise DataError(
                f"{self._name} fails: {type(problem).__name__}: {problem}", fix="Call it in Python to see where."
            ) from problem

    def _iterable(self, batch_size: int, shuffle: bool, seed: int, epoch: int) -> Iterable[Any]:
        kept = self._made.get((batch_size, shuffle))
        if kept is not None:
            return kept
        options = {"split": self._split, "batch_size": batch_size, "shuffle": shuffle, "seed": seed, "epoch": epoch}
        options = {name: value for name, value in options.items() if name in self._offered}
        made = call(self._function, self._arguments | options, what=self._name, error=DataError)
        if not isinstance(made, Iterable):
            raise DataError(
                f"{self._name} gives an object of type {type(made).__name__}, which cannot be iterated", fix=_FORM
            )
        if not (isinstance(made, Iterator) or self._offered & {"epoch", "seed"}):
            self._made[batch_size, shuffle] = made
        return made

    def _checked(self, item: Any, step: int) -> Batch:
        where = f"batch {step} of {self._name} ({self._split})"
        if isinstance(item, Mapping):
            item = (item, item)  # a batch whose targets are among its arrays
        if not (isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], Mapping)):
            raise DataError(
                f"{where} is of type {type(item).__name__}, not a pair (inputs, target)", fix=_FORM, step=step
            )
        arrays = {str(name): _as_array(value) for name, value in item[0].items()}
        given = item[1]
        targets = (
            {str(name): _as_array(value) for name, value in given.items()}
            if isinstance(given, Mapping)
            else _as_array(given)
        )
        inputs, fitted = self._request.fit(arrays, targets, where=where)
        tensors = {name: as_tensor(array) for name, array in fitted.items()}
        return (
            {name: as_tensor(array) for name, array in inputs.items()},
            tensors if len(tensors) > 1 else next(iter(tensors.values())),
        )


def _as_array(value: Any) -> Array:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _parameters(function: Callable[..., Any]) -> set[str]:
    target = function.func if isinstance(function, functools.partial) else function
    try:
        return set(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return set()
