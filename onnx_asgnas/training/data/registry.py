"""The data sources by name, and the one function that opens them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onnx_asgnas.errors import DataError
from onnx_asgnas.specs import call, parse_spec
from onnx_asgnas.training.data.checks import IGNORED, LABEL, fit_inputs, fit_targets
from onnx_asgnas.training.data.dataset import Array, ArraySplit, Dataset, ModelInput, describe


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """What the data is for: the model's inputs, and the targets that the loss needs.

    `classes` is the number of classes that the targets tell apart (None: no labels), `ignored` the label of what does
    not count. `targets` are their names, where a source has names; one that is called as an input is that input.
    """

    inputs: tuple[ModelInput, ...]
    classes: int | None = None
    targets: tuple[str, ...] = (LABEL,)
    ignored: int = IGNORED

    def split(
        self,
        arrays: Mapping[str, Array],
        targets: Array | Mapping[str, Array],
        *,
        where: str,
        suffix: str = "",
    ) -> ArraySplit:
        """Arrays and targets as a split, checked against the model; raises DataError or NonFiniteError.

        Of targets by name those that the loss needs are taken; a single one stands for itself, without its name.
        """
        inputs, checked = self.fit(arrays, targets, where=where, suffix=suffix)
        if len(next(iter((*inputs.values(), *checked.values())))) == 0:
            raise DataError(f"{where} holds no samples", fix="Give at least one.")
        return ArraySplit.from_arrays(inputs, checked if len(checked) > 1 else next(iter(checked.values())))

    def fit(
        self,
        arrays: Mapping[str, Array],
        targets: Array | Mapping[str, Array],
        *,
        where: str,
        suffix: str = "",
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The inputs that the model reads and the targets that the loss needs, by name; raises as `split` does.

        `suffix` stands behind the names of the targets in messages.
        """
        inputs = fit_inputs(arrays, self.inputs, where=where)
        named = targets if isinstance(targets, Mapping) else {self.targets[0]: targets}
        wanted = self.targets if isinstance(targets, Mapping) else (self.targets[0],)
        samples = len(next(iter(inputs.values()))) if inputs else len(next(iter(named.values())))
        fitted = {}
        for name in wanted:
            if name not in named and name not in arrays:
                raise self._missing(name, {**arrays, **named}, where)
            fitted[name] = fit_targets(
                named[name] if name in named else arrays[name],
                samples=samples,
                classes=self.classes,
                where=where,
                name=name + suffix,
                ignored=self.ignored,
            )
        return inputs, fitted

    def _missing(self, name: str, arrays: Mapping[str, Array], where: str) -> DataError:
        has = "; ".join(describe(name, array.shape, array.dtype) for name, array in arrays.items())
        return DataError(
            f"{where} has no array {name!r}",
            fix=f"It has: {has}. The model reads {'; '.join(map(str, self.inputs))}; the loss needs "
            f"{', '.join(self.targets)} (--loss NAME?target=ARRAY says otherwise).",
            array=name,
        )


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


def open_data(
    text: str,
    *,
    inputs: Sequence[ModelInput],
    classes: int | None = None,
    targets: Sequence[str] = (LABEL,),
    ignored: int = IGNORED,
) -> Dataset:
    """The data set that a text names: `source[:location][?argument=value&…]`.

    `inputs` is what the model reads (`model_inputs(model)`), `classes` the width of its output where targets are
    labels, `targets` the names of those that the loss needs, `ignored` the label that does not count. Raises DataError
    when there is no such source, the data is missing or damaged, or does not fit the model; NonFiniteError for NaN in
    it. Streams are checked batch by batch while they run.
    """
    spec = parse_spec(text, DataError)
    name, _, location = spec.name.partition(":")
    if name not in _sources:
        raise DataError(f"there is no data source {name!r}", fix=f"Choose one of: {', '.join(sources())}.", source=name)
    request = DataRequest(inputs=tuple(inputs), classes=classes, targets=tuple(targets), ignored=ignored)
    opened = functools.partial(_sources[name], location, request)
    dataset: Dataset = call(opened, spec.arguments, what=f"data source {name}", error=DataError)
    return dataset
