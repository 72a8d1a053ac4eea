"""Keras 3: `keras:net.keras`, or a factory `keras:package.module:name`; on torch, unless KERAS_BACKEND says else.

On its torch backend a Keras model is a torch.nn.Module, whose export keeps BatchNormalization and an open batch. What
Keras calls its variables (`conv1/kernel`) they are called afterwards.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_asgnas.converters.export import Export, Source
from onnx_asgnas.converters.factories import build, refuse_pickle
from onnx_asgnas.converters.failing import first_line
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.errors import ConversionError

if TYPE_CHECKING:
    import torch

    from onnx_asgnas.converters.jax_functions import Network

_FILES = (".keras", ".h5", ".hdf5")


def convert(source: Source) -> Export:
    """Export a model by the exporter of its backend, which is torch where the user has not chosen one.

    Without --input it reads what it says itself. A model with Lambda layers, which hold code, needs `trust`. Raises
    ConversionError when it cannot be loaded or exported.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    model = _load(source)
    inputs = source.inputs or _inputs_of(model)
    backend = keras.backend.backend()
    count = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model._flatten_layers())
    _use_native_norms(model)
    if backend == "torch":
        return _by_torch(model, inputs, count)
    if backend == "tensorflow":
        from onnx_asgnas.converters.tensorflow_models import export_function

        return export_function(_call(model, inputs), inputs, _parameters_of(model), count)
    if backend == "jax":
        from onnx_asgnas.converters import jax_functions

        return jax_functions.export_function(_network_of_jax(model, inputs, count), inputs)
    raise ConversionError(f"the backend {backend!r} has no exporter", fix="Set KERAS_BACKEND=torch.")


def _load(source: Source) -> Any:
    import keras

    path = Path(source.body)
    if path.suffix not in _FILES:
        return build(source.body, scheme="keras", kind=keras.Model, what="a keras.Model")
    if not path.is_file():
        raise ConversionError(f"{path} does not exist", fix="Check the path.", path=str(path))
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not source.trust)
    except Exception as problem:  # layers of all kinds load themselves
        if "safe_mode" in str(problem) or "unsafe" in str(problem):
            raise refuse_pickle(str(path), "It holds Lambda layers, which are Python code.") from problem
        raise ConversionError(
            f"Keras cannot load {path}: {first_line(problem)}",
            fix="Layers of your own must be registered: write a factory that imports them, keras:package.module:name.",
        ) from problem


def _inputs_of(model: Any) -> tuple[InputSpec, ...]:
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise ConversionError(
            f"the {type(model).__name__} has never been called", fix='Add --input "x:float32[N,32,32,3]".'
        )
    return tuple(_spec(tensor, at) for at, tensor in enumerate(tensors))


def _spec(tensor: Any, at: int) -> InputSpec:
    """An open axis is N where it is the first; other open ones have a name for each place."""
    dims = enumerate(tensor.shape)
    shape = tuple(("N" if axis == 0 else f"D{axis}") if d is None else int(d) for axis, d in dims)
    samples = tuple((d, 32) for d in shape[1:] if isinstance(d, str))
    name = str(tensor.name).replace(":", "_") or f"input_{at}"
    return InputSpec(name=name, dtype=str(tensor.dtype), shape=shape, samples=samples)


def _call(model: Any, inputs: tuple[InputSpec, ...]) -> Any:
    """The model as a function of its inputs, in inference."""

    def call(*arrays: Any) -> Any:
        return model(_packed(model, arrays), training=False)

    return call


def _packed(model: Any, arrays: tuple[Any, ...]) -> Any:
    """The inputs in the structure that the model takes: alone, in a list, or in a dict by their names."""
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict):
        return dict(zip(structure, arrays, strict=True))
    return arrays[0] if len(arrays) == 1 else list(arrays)


def _parameters_of(model: Any) -> dict[str, Any]:
    import keras

    return {v.path: keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables}


def _by_torch(model: Any, inputs: tuple[InputSpec, ...], normalisations: int) -> Export:
    from onnx_asgnas.converters.torch_export import export_module

    module = _module_of(model)
    export = export_module(module, [_placed(spec) for spec in inputs], parameters=_parameters_of(model))
    return replace(export, exporter=f"Keras on torch, {export.exporter}", normalisations=normalisations)


def _use_native_norms(model: Any) -> None:
    """Let each BatchNormalization run the backend's own: Keras spells it out in five operators."""
    import keras

    native = {"torch": _batch_norm_of_torch, "jax": _batch_norm_of_flax}.get(keras.backend.backend())
    for layer in model._flatten_layers():
        if native is not None and isinstance(layer, keras.layers.BatchNormalization):
            layer.call = native(layer)


def _batch_norm_of_torch(layer: Any) -> Any:
    """What a BatchNormalization does in inference, by torch's own, which the exporter writes as one operator."""
    import torch

    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        result = torch.nn.functional.batch_norm(
            inputs.movedim(layer.axis, 1),
            mean,
            variance,
            layer.gamma.value if layer.scale else torch.ones_like(mean),
            layer.beta.value if layer.center else torch.zeros_like(mean),
            eps=layer.epsilon,
        )
        return result.movedim(1, layer.axis)

    return call


def _network_of_jax(model: Any, inputs: tuple[InputSpec, ...], normalisations: int) -> Network:
    from onnx_asgnas.converters import jax_functions

    def other() -> Network:
        for variable, value in zip(
            model.trainable_variables, jax_functions.varied([v.value for v in model.trainable_variables]), strict=True
        ):
            variable.assign(value)
        _use_native_norms(model)
        return _network_of_jax(model, inputs, normalisations)

    return jax_functions.Network(
        function=_call(model, inputs),
        parameters=_parameters_of(model),
        normalisations=normalisations,
        varied=other,
    )


def _batch_norm_of_flax(layer: Any) -> Any:
    """The same by Flax's own, which jax2onnx writes as one operator."""
    from flax import nnx

    norm = nnx.BatchNorm(
        layer.moving_mean.shape[0],
        axis=layer.axis,
        epsilon=layer.epsilon,
        use_running_average=True,
        use_bias=layer.center,
        use_scale=layer.scale,
        rngs=nnx.Rngs(0),
    )
    norm.mean[...], norm.var[...] = layer.moving_mean.value, layer.moving_variance.value
    if layer.scale:
        norm.scale[...] = layer.gamma.value
    if layer.center:
        norm.bias[...] = layer.beta.value

    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        return norm(inputs)

    return call


def _placed(spec: InputSpec) -> InputSpec:
    """The same input, fed by place: names of Keras inputs are no names of arguments."""
    name = (spec.name or "x").replace(".", "_")
    return InputSpec(name=name, dtype=spec.dtype, shape=spec.shape, samples=spec.samples)


def _module_of(model: Any) -> torch.nn.Module:
    """The model as a module with one argument for each input, whose parameters have the names of Keras.

    Keras' own modules read their variables past torch's parameters, so that an exporter takes them for constants
    without names.
    """
    import torch

    class Flat(torch.nn.Module):
        """The variables as parameters and buffers; the model is told to use these."""

        def __init__(self) -> None:
            super().__init__()
            self.names = [[v.path for v in each] for each in (model.trainable_variables, model.non_trainable_variables)]
            for variable in model.trainable_variables:
                self.register_parameter(variable.path, variable.value)
            for variable in model.non_trainable_variables:
                self.register_buffer(variable.path, variable.value.detach())

        def forward(self, *arrays: Any) -> Any:
            values = [[getattr(self, name) for name in names] for names in self.names]
            return model.stateless_call(*values, _packed(model, arrays), training=False)[0]

    return Flat().cpu().eval()
