"""The converters by scheme, one module per framework, loaded when a source asks for it.

Another package adds one by an entry point in the group `onnx_asgnas.converters` whose name is the scheme: a function
`(source: Source) -> Export`, or a `Converter` that says what it needs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from onnx_asgnas.converters import environments, isolation
from onnx_asgnas.converters.export import Export, Source
from onnx_asgnas.converters.failing import exporter_failed, logged
from onnx_asgnas.errors import AsgnasError, ConversionError

ENTRY_POINT_GROUP = "onnx_asgnas.converters"

Convert: TypeAlias = "Callable[[Source], Export]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Converter:
    """A converter and what it needs.

    `target` is `module:function`; `form` how a source is written. It runs in this process where all `modules` can be
    imported and the installed packages fit what `exporters` (names of distributions) ask for; else in `environment`.
    `extra` is what pip installs for it beside this package, where that disturbs nothing.
    """

    scheme: str
    target: str
    form: str
    modules: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ()
    environment: str | None = None
    extra: str | None = None

    def function(self) -> Convert:
        """The converter itself; its module is imported now."""
        module, _, name = self.target.partition(":")
        found: Convert = getattr(importlib.import_module(module), name)
        return found


_HERE = "onnx_asgnas.converters"
_BUILT_IN = {
    converter.scheme: converter
    for converter in (
        Converter(scheme="models", target=f"{_HERE}.networks:convert", form="models:NAME[?argument=value]"),
        Converter(
            scheme="torch",
            target=f"{_HERE}.pytorch:convert",
            form="torch:pkg.mod:factory[?argument=value], torch:FILE.pt2, torch:FILE.pt",
            modules=("torch",),
        ),
        Converter(
            scheme="torchvision",
            target=f"{_HERE}.torch_collections:torchvision",
            form="torchvision:NAME[?argument=value]",
            modules=("torch", "torchvision"),
            environment="torch",
            extra="torchvision",
        ),
        Converter(
            scheme="timm",
            target=f"{_HERE}.torch_collections:timm",
            form="timm:NAME[?argument=value]",
            modules=("torch", "timm"),
            environment="torch",
            extra="timm",
        ),
        Converter(
            scheme="hf",
            target=f"{_HERE}.huggingface:convert",
            form="hf:FOLDER[?task=…]",
            modules=("torch", "transformers"),
            environment="torch",
            extra="huggingface",
        ),
        Converter(
            scheme="keras",
            target=f"{_HERE}.keras_models:convert",
            form="keras:FILE.keras, keras:pkg.mod:factory[?argument=value]",
            modules=("keras",),
            environment="keras",
            extra="keras",
        ),
        Converter(
            scheme="sklearn",
            target=f"{_HERE}.scikit_learn:convert",
            form="sklearn:FILE.joblib, sklearn:pkg.mod:factory",
            modules=("sklearn", "skl2onnx"),
            exporters=("skl2onnx",),
            environment="sklearn",
            extra="sklearn",
        ),
        Converter(
            scheme="jax",
            target=f"{_HERE}.jax_functions:convert",
            form="jax:pkg.mod:function[?argument=value]",
            modules=("jax", "jax2onnx"),
            exporters=("jax2onnx",),
            environment="jax",
        ),
        Converter(
            scheme="saved_model",
            target=f"{_HERE}.tensorflow_models:saved_model",
            form="saved_model:FOLDER",
            modules=("tensorflow", "tf2onnx"),
            exporters=("tf2onnx",),
            environment="tensorflow",
        ),
        Converter(
            scheme="tflite",
            target=f"{_HERE}.tensorflow_models:tflite",
            form="tflite:FILE",
            modules=("tensorflow", "tf2onnx"),
            exporters=("tf2onnx",),
            environment="tensorflow",
        ),
        Converter(
            scheme="tensorflow",
            target=f"{_HERE}.tensorflow_models:function",
            form="tensorflow:pkg.mod:function[?argument=value]",
            modules=("tensorflow", "tf2onnx"),
            exporters=("tf2onnx",),
            environment="tensorflow",
        ),
        Converter(
            scheme="paddle",
            target=f"{_HERE}.paddle_models:convert",
            form="paddle:FOLDER",
            modules=("paddle", "paddle2onnx"),
            exporters=("paddle2onnx",),
            environment="paddle",
        ),
    )
}


_KERAS_BACKENDS = {
    backend: replace(
        _BUILT_IN["keras"],
        modules=("keras", *_BUILT_IN[scheme].modules),
        exporters=_BUILT_IN[scheme].exporters,
        environment=_BUILT_IN[scheme].environment,
        extra=None,
    )
    for backend, scheme in (("tensorflow", "saved_model"), ("jax", "jax"))
}


def schemes() -> tuple[str, ...]:
    """The schemes that a source may have, those of other packages included."""
    return tuple(sorted({*_BUILT_IN, *(point.name for point in _entry_points())}))


def forms() -> tuple[str, ...]:
    """How the sources of this package's converters are written."""
    return tuple(converter.form for converter in _BUILT_IN.values())


def split(source: str) -> tuple[str | None, str]:
    """The scheme and the rest; a scheme has two letters or more, so that `C:\\model.onnx` is a file."""
    match = re.match(r"([A-Za-z][A-Za-z0-9_+-]+):(?!//)(.*)", source, re.DOTALL)
    return (match[1], match[2]) if match else (None, source)


def export(
    scheme: str, source: Source, *, time_limit: float | None = None, log: Path | None = None
) -> tuple[Export, str | None]:
    """Run the converter of a scheme; the environment that it ran in, None for this one.

    It runs in this process where it can, and without a time limit; else in one of its own.
    """
    converter = _converter(scheme)
    problem = _cannot_run_here(converter)
    if problem is None and time_limit is None:
        with logged(log):
            return _run_here(converter, source), None
    if problem is None:
        return isolation.run(converter.target, source, python=None, time_limit=time_limit, log=log), None
    if converter.environment is None:
        raise ConversionError(problem, fix="Install what is missing.", scheme=scheme)
    environment = _environment_for(converter, problem)
    found = isolation.run(converter.target, source, python=environment.python, time_limit=time_limit, log=log)
    return found, environment.name


def _run_here(converter: Converter, source: Source) -> Export:
    try:
        return converter.function()(source)
    except AsgnasError:
        raise
    except Exception as problem:  # a framework's own: whatever it is, say whose
        raise exporter_failed(f"the converter of {converter.scheme}:", problem) from problem


def _environment_for(converter: Converter, problem: str) -> environments.Environment:
    name = str(converter.environment)
    try:
        return environments.require(name, problem)
    except ConversionError as error:
        if converter.extra is not None and environments.find(name).state == "absent":
            error.fix += f", or: pip install 'onnx-asgnas[{converter.extra}]'"
        raise


def _cannot_run_here(converter: Converter) -> str | None:
    """Why a converter cannot run in this process; None where it can."""
    missing = [name for name in converter.modules if importlib.util.find_spec(name) is None]
    if missing:
        return f"{converter.scheme}: needs {' and '.join(missing)}"
    unmet = [text for name in converter.exporters for text in _unmet(name)]
    if unmet:
        return f"{converter.scheme}: needs {', '.join(unmet)}"
    return None


def _unmet(distribution: str) -> list[str]:
    """Requirements of a distribution that what is installed here contradicts."""
    from packaging.requirements import Requirement

    found = []
    try:
        wanted = map(Requirement, importlib.metadata.requires(distribution) or ())
        for want in (w for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})):
            try:
                version = importlib.metadata.version(want.name)
            except importlib.metadata.PackageNotFoundError:
                continue  # another distribution may provide it
            if not want.specifier.contains(version, prereleases=True):
                found.append(f"{want} ({version} is installed)")
    except importlib.metadata.PackageNotFoundError:
        pass  # installed by other means than a distribution
    return found


def _converter(scheme: str) -> Converter:
    if scheme == "keras" and os.environ.get("KERAS_BACKEND") in _KERAS_BACKENDS:
        return _KERAS_BACKENDS[os.environ["KERAS_BACKEND"]]
    if scheme in _BUILT_IN:
        return _BUILT_IN[scheme]
    for point in _entry_points():
        if point.name == scheme:
            return _loaded(point)
    known = ", ".join(f"{name}:" for name in schemes())
    raise ConversionError(
        f"there is no converter for {scheme!r}", fix=f"A source is an .onnx file or starts with {known}.", scheme=scheme
    )


def _loaded(point: importlib.metadata.EntryPoint) -> Converter:
    try:
        added = point.load()
    except Exception as problem:  # another package's code: whatever it is, say whose
        raise ConversionError(
            f"the converter for {point.name!r} ({point.value}) cannot be loaded: {problem}",
            fix="Repair or remove the package that brings it.",
            scheme=point.name,
        ) from problem
    if isinstance(added, Converter):
        return added
    return Converter(scheme=point.name, target=point.value, form=f"{point.name}:…")


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
