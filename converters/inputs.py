"""What a model reads, as users write it: `x:float32[N,3,32,32]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import ConversionError

_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
_SAMPLE_BATCH = 2
"""Size that an open first axis is traced at: torch.export treats 0 and 1 as constants."""
_SAMPLE_SIZE = 8
"""Size that any other open axis is traced at, unless the text names one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """One input: its name (None: the converter's choice), element type, and shape, with open dimensions as names.

    `samples` holds the sizes at which open dimensions are traced, where the text gives one (`T=16`). A name with dots
    is a place inside an argument: `batch.image` an entry of a dict, `pair.0` of a tuple.
    """

    name: str | None
    dtype: str
    shape: tuple[int | str, ...]
    samples: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        stated = dict(self.samples)
        shape = ",".join(f"{d}={stated[d]}" if isinstance(d, str) and d in stated else str(d) for d in self.shape)
        text = f"{self.dtype}[{shape}]"
        return f"{self.name}:{text}" if self.name else text

    @property
    def symbols(self) -> tuple[str, ...]:
        """The open dimensions, in the order of the axes."""
        return tuple(dict.fromkeys(d for d in self.shape if isinstance(d, str)))

    @property
    def batch_symbol(self) -> str | None:
        """The name of the first axis where it is open."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, str) else None

    def sample_sizes(self) -> dict[str, int]:
        """A size for every open dimension."""
        sizes = {s: _SAMPLE_BATCH if s == self.batch_symbol else _SAMPLE_SIZE for s in self.symbols}
        return sizes | dict(self.samples)

    def random(self, sizes: Mapping[str, int], generator: np.random.Generator) -> NDArray[np.generic]:
        """Random data of this type: normal numbers, or integers and truth values of 0 and 1 (valid as any index).

        What is called a mask begins with ones: a sequence that is masked as a whole has no output.
        """
        shape = tuple(d if isinstance(d, int) else sizes[d] for d in self.shape)
        if self.dtype.startswith("float"):
            return generator.standard_normal(shape).astype(self.dtype)
        values = generator.integers(0, 2, shape).astype(self.dtype)
        if self.name and "mask" in self.name and values.ndim:
            values[..., :1] = 1
        return values


def sample_sizes(inputs: Sequence[InputSpec]) -> dict[str, int]:
    """A size for every open dimension of several inputs: one that is stated first, then that of a batch."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        for symbol, size in spec.sample_sizes().items():
            if symbol in dict(spec.samples) or symbol == spec.batch_symbol or symbol not in sizes:
                sizes[symbol] = size
    return sizes


def arrange(inputs: Sequence[InputSpec], values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Values, one for each input, as the arguments of a call: those without a name, then the others by name.

    Names with dots give dicts and tuples: `batch.image` and `batch.mask` one argument `batch` with two entries.
    Raises ConversionError where two names exclude each other.
    """
    unnamed = [value for spec, value in zip(inputs, values, strict=True) if spec.name is None]
    tree: dict[str, Any] = {}
    for spec, value in zip(inputs, values, strict=True):
        if spec.name is None:
            continue
        *path, last = spec.name.split(".")
        place = tree
        for step in path:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise _both(spec)
        if last in place:
            raise _both(spec)
        place[last] = value
    return unnamed, {name: _tuples(value) for name, value in tree.items()}


def _tuples(tree: Any) -> Any:
    """The same with every dict whose keys are 0, 1, … as a tuple."""
    if not isinstance(tree, dict):
        return tree
    values = {name: _tuples(value) for name, value in tree.items()}
    places = [str(at) for at in range(len(values))]
    return tuple(values[at] for at in places) if values.keys() == set(places) else values


def _both(spec: InputSpec) -> ConversionError:
    return ConversionError(
        f"input {spec.name!r} is there twice, or inside of another input",
        fix="Give every entry once: batch.image, batch.mask; pair.0, pair.1.",
        input=str(spec),
    )


def parse_input(text: str) -> InputSpec:
    """Read `name:type[shape]`, the name optional; a dimension is a number, a name, or a name with its traced size.

    `"float32[N,3,32,32]"`, `"ids:int64[N,T]"`, `"mel:float32[N,80,T=16]"`. Raises ConversionError for anything else.
    """
    example = 'Write it as "x:float32[N,3,32,32]"; open dimensions have names.'
    match = re.fullmatch(r"\s*(?:([^\s:\[\]]+)\s*:)?\s*([a-z]+[0-9]*)\s*\[(.*)\]\s*", text)
    if match is None:
        raise ConversionError(f"input {text!r} is not of the form name:type[shape]", fix=example, input=text)
    name, dtype, dimensions = match.groups()
    if dtype not in _DTYPES:
        raise ConversionError(
            f"input {text!r} has the type {dtype!r}", fix=f"Choose one of: {', '.join(_DTYPES)}.", input=text
        )
    shape: list[int | str] = []
    samples: dict[str, int] = {}
    for dimension in dimensions.split(",") if dimensions.strip() else []:
        part = re.fullmatch(r"\s*(?:([1-9][0-9]*)|([A-Za-z_][A-Za-z0-9_]*)(?:\s*=\s*([1-9][0-9]*))?)\s*", dimension)
        if part is None:
            raise ConversionError(
                f"dimension {dimension.strip()!r} of input {text!r} is no size above 0 and no name",
                fix=example,
                input=text,
            )
        number, symbol, sample = part.groups()
        shape.append(int(number) if number else symbol)
        if sample:
            samples[symbol] = int(sample)
    return InputSpec(name=name, dtype=dtype, shape=tuple(shape), samples=tuple(samples.items()))
