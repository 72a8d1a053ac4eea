"""JAX: a function, a Flax nnx or Equinox module, or a Flax linen module with its variables: `jax:package.module:name`.

What is named is the network itself, or a function that gives it: one that can be called with the arguments of the
source, as `jax:nets:resnet?width=8`. Linen modules come as a pair (module, variables).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas.converters.export import OPSET, Array, Export, Source, record
from onnx_asgnas.converters.failing import exporter_failed, first_line
from onnx_asgnas.converters.inputs import InputSpec, arrange
from onnx_asgnas.converters.naming import name_by_twin, name_parameters
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.specs import call, load_attribute, parse_spec, working_directory_on_path

_FIX = "jax2onnx lists the primitives that it has; sizes that the network fixes must be numbers in --input."


def convert(source: Source) -> Export:
    """Export the network by jax2onnx; it needs inputs.

    Raises ConversionError when it is missing, is no network, cannot run on the inputs, or cannot be written.
    """
    if not source.inputs:
        raise ConversionError(
            "a jax: source needs to know what the network reads", fix='Add --input "x:float32[N,32,32,3]".'
        )
    return export_function(_network(_load(source.body), source.body), source.inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A function of arrays with its parameters bound in it, and these by name.

    `varied` gives the same network with other parameters; None where they cannot be changed from outside.
    """

    function: Callable[..., Any]
    parameters: Mapping[str, Array] = field(default_factory=dict)
    normalisations: int | None = None
    varied: Callable[[], Network] | None = None


def export_function(network: Network, inputs: Sequence[InputSpec]) -> Export:
    """Export a network with one array for each input.

    Where parameters hold equal values, as they do before any training, a second export with other ones tells which is
    which.
    """
    names = [spec.name or f"input_{at}" for at, spec in enumerate(inputs)]
    samples = record(lambda arrays: _run(network.function, inputs, arrays), inputs, names)
    model = _written(network, inputs, names)
    if network.varied is not None and _names_are_lost(model, network.parameters):
        other = network.varied()
        name_by_twin(model, _written(other, inputs, names), other.parameters)
    return Export(
        model=model,
        exporter=f"jax2onnx {metadata.version('jax2onnx')}",
        samples=samples,
        parameters=network.parameters,
        normalisations=network.normalisations,
    )


def varied(values: Any) -> Any:
    """A tree of arrays with others of the same shapes and types, no two equal."""
    import jax

    random = np.random.default_rng(2)

    def other(array: Any) -> Any:
        if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
            return array
        return array * random.uniform(0.5, 1.5, array.shape).astype(array.dtype) + random.uniform(
            0.1, 0.2, array.shape
        ).astype(array.dtype)

    return jax.tree.map(other, values)


def _written(network: Network, inputs: Sequence[InputSpec], names: Sequence[str]) -> onnx.ModelProto:
    import jax
    import jax2onnx

    try:
        with jax.default_matmul_precision("highest"):
            flat = _flat(network.function, inputs)
            model: onnx.ModelProto = jax2onnx.to_onnx(flat, inputs=_shapes_of(inputs), opset=OPSET, input_names=names)
    except Exception as problem:  # JAX's and jax2onnx's own kinds
        raise exporter_failed("jax2onnx", problem, fix=_FIX) from problem
    _without_zero_biases(model.graph)
    return model


def _names_are_lost(model: onnx.ModelProto, parameters: Mapping[str, Array]) -> bool:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return bool(name_parameters(copy, parameters).lost)


def _without_zero_biases(graph: onnx.GraphProto) -> None:
    """Take the scalar zero away that a product without a bias gets: it would train, for all columns at once."""
    zeros = {t.name for t in graph.initializer if not t.dims and not numpy_helper.to_array(t).any()}
    for node in graph.node:
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]


def _flat(function: Callable[..., Any], inputs: Sequence[InputSpec]) -> Callable[..., Any]:
    """The network itself where it takes the inputs in their order; else a function that arranges them for it."""
    if all("." not in (spec.name or "") for spec in inputs):
        return function
    return lambda *arrays: function(*_arranged(inputs, arrays))


def _run(function: Callable[..., Any], inputs: Sequence[InputSpec], arrays: Sequence[Array]) -> list[Array]:
    import jax

    try:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(_flat(function, inputs)(*arrays))]
    except Exception as problem:  # the user's code
        read = ", ".join(f"{list(array.shape)} {array.dtype}" for array in arrays)
        raise ConversionError(
            f"the network cannot run on {read}: {type(problem).__name__}: {first_line(problem)}",
            fix="Does --input say the shapes, the types and the order that it takes?",
        ) from problem


def _arranged(inputs: Sequence[InputSpec], arrays: Sequence[Any]) -> list[Any]:
    positional, named = arrange(inputs, arrays)
    return [*positional, *named.values()]


def _shapes_of(inputs: Sequence[InputSpec]) -> list[Any]:
    """As jax2onnx takes them: open dimensions by name; where one is not float32, with the element types.

    One name is one dimension, so that all of them are symbols of one scope.
    """
    import jax

    if all(spec.dtype == "float32" for spec in inputs):
        return [spec.shape for spec in inputs]
    scope = jax.export.SymbolicScope()
    texts = [",".join(map(str, spec.shape)) for spec in inputs]
    shapes = [jax.export.symbolic_shape(text, scope=scope) for text in texts]
    return [jax.ShapeDtypeStruct(shape, spec.dtype) for shape, spec in zip(shapes, inputs, strict=True)]


def _load(body: str) -> Any:
    """The named object, called where it is a factory: where the arguments of the source are all that it needs."""
    import inspect

    spec = parse_spec(body, ConversionError)
    found = load_attribute(spec.name, ConversionError)
    if not callable(found) or (_is_module(found) and not isinstance(found, type)):
        return found
    try:
        inspect.signature(found).bind(**spec.arguments)
    except (TypeError, ValueError):
        if not spec.arguments and not isinstance(found, type):
            return found  # it needs arguments: it is the network
    try:
        with working_directory_on_path():
            return call(found, spec.arguments, what=f"jax:{spec.name}", error=ConversionError)
    except ConversionError:
        raise
    except Exception as problem:  # the user's code
        raise ConversionError(
            f"jax:{spec.name} fails: {type(problem).__name__}: {problem}", fix="Call it in Python to see where."
        ) from problem


def _network(found: Any, body: str) -> Network:
    """The network as a function of its inputs, and its parameters by path."""
    if isinstance(found, tuple) and len(found) == 2 and hasattr(found[0], "apply"):
        return _of_linen(*found)
    if not callable(found):
        raise ConversionError(
            f"jax:{body} is of type {type(found).__name__}, not a network",
            fix="Name a function of arrays, an nnx or Equinox module, or a pair (linen module, variables).",
        )
    if _is_nnx(found):
        return _of_nnx(found)
    return _of_equinox(found) if _is_module(found) else Network(function=found)


def _of_linen(module: Any, variables: Any) -> Network:
    parameters = variables.get("params", {})
    return Network(
        function=_linen(module, variables),
        parameters=_leaves(parameters),
        varied=lambda: _of_linen(module, {**variables, "params": varied(parameters)}),
    )


def _of_nnx(module: Any) -> Network:
    from flax import nnx

    def other() -> Network:
        copy = nnx.clone(module)
        nnx.update(copy, varied(nnx.state(copy, nnx.Param)))
        return _of_nnx(copy)

    module.eval()
    return Network(
        function=module,
        parameters=_leaves(nnx.to_pure_dict(nnx.state(module, nnx.Param))),
        normalisations=sum(isinstance(each, nnx.BatchNorm) for _, each in nnx.iter_modules(module)),
        varied=other,
    )


def _of_equinox(module: Any) -> Network:
    import jax

    def other() -> Network:
        return _of_equinox(jax.tree.map(lambda leaf: varied(leaf) if hasattr(leaf, "dtype") else leaf, module))

    return Network(function=module, parameters=_leaves(module), varied=other)


def _linen(module: Any, variables: Any) -> Callable[..., Any]:
    import inspect

    takes = inspect.signature(module.__call__).parameters
    fixed = {name: name == "deterministic" for name in ("train", "training", "deterministic") if name in takes}

    def apply(*arrays: Any) -> Any:
        return module.apply(variables, *arrays, **fixed)

    return apply


def _is_nnx(found: Any) -> bool:
    return any(base.__module__.startswith("flax.nnx") for base in type(found).__mro__)


def _is_module(found: Any) -> bool:
    return any(base.__module__.startswith(("flax.", "equinox.")) for base in type(found).__mro__)


def _leaves(tree: Any) -> dict[str, Array]:
    """The float arrays of a tree by their paths: `stem.kernel`."""
    import jax

    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "dtype") and np.issubdtype(leaf.dtype, np.floating):
            steps = [str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path]
            found[".".join(steps)] = np.asarray(leaf)
    return found
