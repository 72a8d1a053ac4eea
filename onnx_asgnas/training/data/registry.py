"""The data sources by name, and the one function that opens them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onnx_asgnas.errors import DataError
from onnx_asgnas.specs import call, parse_spec
from onnx_asgnas.training.data.checks import fit_inputs, fit_targets
from onnx_asgnas.training.data.dataset import Array, ArraySplit, Dataset, ModelInput


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """What the data is for: the model's inputs, and the number of classes it tells apart (None: no labels)."""

    inputs: tuple[ModelInput, ...]
    classes: int | None = None

    def split(self, arrays: dict[str, Array], targets: Array, *, where: str, target_name: str = "label") -> ArraySplit:
        """Arrays and targets as a split, checked against the model; raises DataError or NonFiniteError."""
        fitting = fit_inputs(arrays, self.inputs, where=where)
        samples = len(next(iter(fitting.values()))) if fitting else len(targets)
        if samples == 0:
            raise DataError(f"{where} holds no samples", fix="Give at least one.")
        checked = fit_targets(targets, samples=samples, classes=self.classes, where=where, name=target_name)
        return ArraySplit.from_arrays(fitting, checked)


class DataSource(Protocol):
    """Opens a data set; `location` is what follows the colon, arguments of the text follow as keywords."""

    def __call__(self, location: str, request: DataRequest, **arguments: Any) -> Dataset:
        """The data set, every array checked against the request; raises DataError."""
        ...


_sources: dict[str, Callable[..., Dataset]] = {}


def register(name: str) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Put a data source into the registry under `name`."""

    def add(source: Callable[..., Dataset]) -> Callable[..., Dataset]:
        if name in _sources:
            raise ValueError(f"two data sources are called {name!r}")
        _sources[name] = source
        return source

    return add


def sources() -> tuple[str, ...]:
    """The names of all data sources, sorted."""
    return tuple(sorted(_sources))


def open_data(text: str, *, inputs: Sequence[ModelInput], classes: int | None = None) -> Dataset:
    """The data set that a text names: `source[:location][?argument=value&…]`.

    `inputs` is what the model reads (`model_inputs(model)`), `classes` the width of its output where targets are
    labels. Raises DataError when there is no such source, the data is missing or damaged, or does not fit the model;
    NonFiniteError for NaN in it. Streams are checked batch by batch while they run.
    """
    spec = parse_spec(text, DataError)
    name, _, location = spec.name.partition(":")
    if name not in _sources:
        raise DataError(f"there is no data source {name!r}", fix=f"Choose one of: {', '.join(sources())}.", source=name)
    opened = functools.partial(_sources[name], location, DataRequest(inputs=tuple(inputs), classes=classes))
    dataset: Dataset = call(opened, spec.arguments, what=f"data source {name}", error=DataError)
    return dataset
