"""torch's two exporters: the one over torch.export first, the TorchScript one where that fails.

Both keep what later stages work on: parameter names, BatchNormalization in inference form, open axes.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnx_asgnas.converters.export import OPSET, Array, Export, record
from onnx_asgnas.converters.failing import exporter_failed, first_line, innermost
from onnx_asgnas.converters.inputs import InputSpec, arrange, sample_sizes
from onnx_asgnas.errors import ConversionError

if TYPE_CHECKING:
    import torch

_FIX = (
    "A dimension that the module fixes must be a number in --input; branches on data cannot be exported, nor operators "
    "that ONNX has no form for."
)


def export_module(
    module: torch.nn.Module, inputs: Sequence[InputSpec], *, parameters: Mapping[str, Array] | None = None
) -> Export:
    """Export a module in eval mode on the CPU, and note what it gives.

    `parameters` are its trainable parameters by the names that they shall have; as a rule those of its state. Raises
    ConversionError when the module refuses the inputs, or neither exporter can write it.
    """
    call = Call.of(module, inputs)
    arrays = [spec.random(sample_sizes(inputs), np.random.default_rng(0)) for spec in inputs]
    call.run(module, arrays)
    model, exporter, notes = _written(module, call, arrays)
    return Export(
        model=model,
        exporter=exporter,
        samples=record(lambda given: call.run(module, given), inputs, call.names_in(model)),
        parameters=parameters if parameters is not None else parameters_of(module),
        normalisations=normalisations_of(module),
        notes=notes,
    )


def _written(
    module: torch.nn.Module, call: Call, arrays: Sequence[Array]
) -> tuple[onnx.ModelProto, str, tuple[str, ...]]:
    """The model, the exporter that wrote it, and why it was not the first one."""
    import torch

    older = "torch.onnx.export(dynamo=False)"
    if isinstance(module, torch.jit.ScriptModule):  # torch.export takes none
        try:
            return _torchscript(module, call, arrays), older, ()
        except Exception as problem:  # torch raises a dozen kinds here
            raise exporter_failed("torch", problem, fix=_FIX) from problem
    try:
        return _dynamo(module, call, arrays), "torch.onnx.export(dynamo=True)", ()
    except Exception as first:
        if _branches_on_data(first):  # a trace would hold the branch of one example, and no comparison need notice
            raise exporter_failed("torch", first, fix=_FIX) from first
        try:
            model = _torchscript(module, call, arrays)
        except Exception:
            raise exporter_failed("torch", first, fix=_FIX) from first
        reason = f"{type(innermost(first)).__name__}: {first_line(innermost(first))}"
        note = f"the TorchScript exporter was used, because the one over torch.export failed: {reason[:200]}"
        return model, older, (note,)


def _branches_on_data(problem: BaseException) -> bool:
    told = ""
    cause: BaseException | None = problem
    while cause is not None:
        told, cause = told + str(cause), cause.__cause__
    return "data-dependent" in told or "dynamic control flow" in told


@dataclass(frozen=True, slots=True)
class Call:
    """How inputs become the arguments of `forward`: by name where it knows all their names, else by place.

    What is fed by place keeps its name in the ONNX model all the same.
    """

    inputs: Sequence[InputSpec]
    by_place: bool

    @classmethod
    def of(cls, module: torch.nn.Module, inputs: Sequence[InputSpec]) -> Call:
        """The call that fits a module's `forward`."""
        known = _arguments_of(module)
        unknown = any(spec.name is None or spec.name.partition(".")[0] not in known for spec in inputs)
        nested = any(spec.name is not None and "." in spec.name for spec in inputs)
        return cls(inputs, by_place=unknown and not nested)

    def arguments(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A value for each input as positional arguments and keywords."""
        if self.by_place:
            return tuple(values), {}
        positional, keywords = arrange(self.inputs, values)
        return tuple(positional), keywords

    def tensors(self, arrays: Sequence[Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arrays as tensors, arranged."""
        import torch

        return self.arguments([torch.from_numpy(np.asarray(array)) for array in arrays])

    def run(self, module: Callable[..., Any], arrays: Sequence[Array]) -> list[Array]:
        """The module's output tensors, flat and in order; raises ConversionError when it refuses the inputs."""
        import torch
        from torch.utils import _pytree

        positional, keywords = self.tensors(arrays)
        try:
            with torch.no_grad():
                result = module(*positional, **keywords)
        except Exception as problem:  # the user's code
            read = ", ".join(f"{list(array.shape)} torch.{array.dtype}" for array in arrays)
            raise ConversionError(
                f"the module cannot run on {read}: {type(problem).__name__}: {first_line(problem)}",
                fix="Does --input say the shapes and types, and the order, that its forward takes?",
            ) from problem
        return [leaf.detach().numpy() for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]

    def names(self) -> list[str] | None:
        """The names for the model's inputs in the order in which arguments are laid flat; None: the exporter's."""
        from torch.utils import _pytree

        if any(spec.name is None for spec in self.inputs):
            return None
        return [str(name) for name in _pytree.tree_leaves(self.arguments([spec.name for spec in self.inputs]))]

    def names_in(self, model: onnx.ModelProto) -> list[str]:
        """The name of each input in the model, which may leave out one that nothing reads."""
        if self.names() is not None:
            return [str(spec.name) for spec in self.inputs]
        weights = {tensor.name for tensor in model.graph.initializer}
        return [value.name for value in model.graph.input if value.name not in weights]


def _arguments_of(module: torch.nn.Module) -> dict[str, bool]:
    """The arguments of `forward`, and which of them takes any number of values."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        script: Any = module.forward
        return {argument.name: False for argument in script.schema.arguments[1:]}
    known = inspect.signature(module.forward).parameters
    return {name: parameter.kind is parameter.VAR_POSITIONAL for name, parameter in known.items()}


def parameters_of(module: torch.nn.Module) -> dict[str, Array]:
    """The trainable parameters by name."""
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def normalisations_of(module: torch.nn.Module) -> int:
    """How many batch normalisations the module has."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return sum(isinstance(each, _BatchNorm) for each in module.modules())


def export_program(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """The ONNX model of an exported program; raises what torch raises."""
    import torch

    return _model_of(torch.onnx.export(program, dynamo=True, optimize=False, opset_version=OPSET, verbose=False))


def _dynamo(module: torch.nn.Module, call: Call, arrays: Sequence[Array]) -> onnx.ModelProto:
    import torch

    symbols = {symbol: torch.export.Dim(symbol) for spec in call.inputs for symbol in spec.symbols}
    axes = [{axis: symbols[d] for axis, d in enumerate(spec.shape) if isinstance(d, str)} for spec in call.inputs]
    positional, keywords = call.tensors(arrays)
    open_positional, open_keywords = call.arguments(axes)
    known = _arguments_of(module)
    shapes: Any = dict(zip(known, open_positional, strict=False)) | open_keywords if keywords else open_positional
    if any(known.values()):
        shapes = (shapes,)
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            positional,
            kwargs=keywords or None,
            dynamo=True,
            optimize=False,  # optimising folds BatchNormalization into the convolutions
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=call.names(),
            verbose=False,
        )
    return _model_of(program)


def _model_of(program: torch.onnx.ONNXProgram | None) -> onnx.ModelProto:
    if program is None:
        raise ConversionError("torch's exporter gave no model", fix="Try another version of torch.")
    return without_absent_biases(program.model_proto)


def _torchscript(module: torch.nn.Module, call: Call, arrays: Sequence[Array]) -> onnx.ModelProto:
    import torch

    positional, keywords = call.tensors(arrays)
    names = call.names() or [f"input_{at}" if at else "input" for at in range(len(call.inputs))]
    flat = torch.utils._pytree.tree_leaves(call.arguments([str(at) for at in range(len(call.inputs))]))
    axes = {
        name: {axis: d for axis, d in enumerate(call.inputs[int(at)].shape) if isinstance(d, str)}
        for name, at in zip(names, flat, strict=True)
    }
    file = io.BytesIO()
    with torch.no_grad(), _without_fused_attention():
        torch.onnx.export(
            module,
            (*positional, keywords) if keywords else positional,
            file,  # type: ignore[arg-type]  # its annotation names paths only, the TorchScript exporter takes both
            dynamo=False,
            input_names=names,
            dynamic_axes=axes,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return onnx.load_from_string(file.getvalue())


@contextlib.contextmanager
def _without_fused_attention() -> Iterator[None]:
    """Keep torch from its fused attention, an operator that has no form in ONNX."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def without_absent_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the zero bias away that the exporter computes for a convolution without one; the same model.

    It is an Expand of a zero constant; left in, it would become a parameter that the module does not have.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    zeros = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Constant"
        and all(a.HasField("t") and not onnx.numpy_helper.to_array(a.t).any() for a in node.attribute)
    }
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
            continue
        expand = producers.get(node.input[2])
        cast = producers.get(expand.input[0]) if expand is not None and expand.op_type == "Expand" else None
        if cast is not None and cast.op_type in ("CastLike", "Cast") and cast.input[0] in zeros:
            del node.input[2]
    return model
