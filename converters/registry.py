"""The converters by scheme, one module per framework, loaded when a source asks for it.

A converter is a function `(body, inputs) -> Conversion`: `body` is the source without its scheme. Another package adds
one by an entry point in the group `onnx_asgnas.converters` whose name is the scheme.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx

from onnx_asgnas.converters.inputs import InputSpec, parse_input
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.graph import load_model

ENTRY_POINT_GROUP = "onnx_asgnas.converters"

_BUILT_IN = {
    "models": "onnx_asgnas.converters.networks:convert",
    "torch": "onnx_asgnas.converters.pytorch:convert",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """An ONNX model and what is known about how well it matches its source.

    `max_relative_difference` is the largest |source - ONNX| over the largest |source|, over all outputs and the batch
    sizes tried; None where the source cannot be run (it is an ONNX model already).
    """

    model: onnx.ModelProto
    max_relative_difference: float | None = None
    batch_sizes: tuple[int, ...] = ()
    operators: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = Counter(node.op_type for node in self.model.graph.node)
        object.__setattr__(self, "operators", dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


Converter: TypeAlias = "Callable[[str, Sequence[InputSpec]], Conversion]"


def convert(source: str, *, inputs: Sequence[str] = ()) -> onnx.ModelProto:
    """The ONNX model of a source, checked by onnx.checker and, where the source can be run, against its outputs.

    `inputs` says what the model reads where the source does not: `"x:float32[N,3,32,32]"` each. Raises ConversionError
    when the source cannot be converted, ModelError when it is an ONNX file that cannot be used.
    """
    return convert_with_report(source, inputs=inputs).model


def convert_with_report(source: str, *, inputs: Sequence[str] = ()) -> Conversion:
    """As `convert`, with the operators found and the largest difference from the source."""
    specs = [parse_input(text) for text in inputs]
    scheme, body = _split(source)
    if scheme is None:
        _refuse_inputs(specs, source)
        return Conversion(model=load_model(source))
    return _converter(scheme)(body, specs)


def schemes() -> tuple[str, ...]:
    """The schemes that a source may have, those of other packages included."""
    return tuple(sorted({*_BUILT_IN, *(point.name for point in _entry_points())}))


def _split(source: str) -> tuple[str | None, str]:
    """The scheme and the rest; a scheme has two letters or more, so that `C:\\model.onnx` is a file."""
    match = re.match(r"([A-Za-z][A-Za-z0-9_+-]+):(?!//)(.*)", source, re.DOTALL)
    return (match[1], match[2]) if match else (None, source)


def _converter(scheme: str) -> Converter:
    target = _BUILT_IN.get(scheme)
    if target is not None:
        module, _, function = target.partition(":")
        built_in: Converter = getattr(importlib.import_module(module), function)
        return built_in
    for point in _entry_points():
        if point.name == scheme:
            try:
                added: Converter = point.load()
            except Exception as problem:  # another package's code: whatever it is, say whose
                raise ConversionError(
                    f"the converter for {scheme!r} ({point.value}) cannot be loaded: {problem}",
                    fix="Repair or remove the package that brings it.",
                    scheme=scheme,
                ) from problem
            return added
    known = ", ".join(f"{name}:" for name in schemes())
    raise ConversionError(
        f"there is no converter for {scheme!r}", fix=f"A source is an .onnx file or starts with {known}.", scheme=scheme
    )


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)


def _refuse_inputs(inputs: Sequence[InputSpec], source: str) -> None:
    if inputs:
        raise ConversionError(f"{source} says itself what it reads", fix="Leave --input out.")
