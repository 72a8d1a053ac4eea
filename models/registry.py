"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from onnx_asgnas.errors import ConversionError
from onnx_asgnas.specs import Spec, call, parse_spec

Factory = Callable[..., onnx.ModelProto]

_factories: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Put a function that builds a network into the registry under `name`."""

    def add(factory: Factory) -> Factory:
        if name in _factories:
            raise ValueError(f"two networks are called {name!r}")
        _factories[name] = factory
        return factory

    return add


def names() -> tuple[str, ...]:
    """The names of all networks, sorted."""
    return tuple(sorted(_factories))


def build(name: str, **arguments: Any) -> onnx.ModelProto:
    """The network `name` as a checked ONNX model; the same arguments give the same bytes.

    The model's metadata keeps what it was built from (`onnx_asgnas.source`). Raises ConversionError, with the names or
    arguments that there are, for an unknown network, an unknown argument, or a value out of range.
    """
    if name not in _factories:
        raise ConversionError(f"there is no network {name!r}", fix=f"Choose one of: {', '.join(names())}.", name=name)
    model: onnx.ModelProto = call(_factories[name], arguments, what=f"models:{name}", error=ConversionError)
    onnx.helper.set_model_props(model, {"onnx_asgnas.source": f"models:{Spec(name=name, arguments=arguments)}"})
    return model


def parse(source: str) -> onnx.ModelProto:
    """The network that a text such as `stackedunets?width=16&seed=1` asks for; raises as `build` does."""
    spec = parse_spec(source, ConversionError)
    return build(spec.name, **spec.arguments)
