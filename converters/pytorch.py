"""PyTorch: a factory `torch:package.module:factory?argument=value`, an exported program, a TorchScript file, a pickle.

torch is imported only when a source asks for it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_asgnas.converters.export import Array, Export, Source, record
from onnx_asgnas.converters.factories import build, refuse_pickle
from onnx_asgnas.converters.failing import exporter_failed, first_line
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.converters.torch_export import Call, export_module, export_program
from onnx_asgnas.errors import ConversionError

if TYPE_CHECKING:
    import torch

_SUFFIXES = (".pt2", ".pt", ".pth", ".ts", ".torchscript")


def convert(source: Source) -> Export:
    """Export the module that the source names.

    A factory or a TorchScript file needs inputs; an exported program knows them. A pickled module is loaded only with
    `trust`. Raises ConversionError when it is missing or of another kind, or when torch cannot export it.
    """
    path = Path(source.body)
    if path.suffix in _SUFFIXES:
        return _of_file(path, source)
    _require_inputs(source)
    import torch

    module = build(source.body, scheme="torch", kind=torch.nn.Module, what="a torch.nn.Module")
    return export_module(module.cpu().eval(), source.inputs)


def _require_inputs(source: Source) -> None:
    if not source.inputs:
        raise ConversionError(
            "a torch: source needs to know what the module reads", fix='Add --input "x:float32[N,3,32,32]".'
        )


def _of_file(path: Path, source: Source) -> Export:
    if not path.is_file():
        raise ConversionError(f"{path} does not exist", fix="Check the path.", path=str(path))
    members = _members(path)
    if any(name.endswith(("/constants.pkl", "code/__torch__.py")) or "/code/" in name for name in members):
        return _torchscript(path, source)
    if path.suffix == ".pt2" or any("serialized_exported_program" in name for name in members):
        return _exported_program(path, source)
    return _pickle(path, source)


def _members(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _torchscript(path: Path, source: Source) -> Export:
    import torch

    _require_inputs(source)
    try:
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as problem:
        raise _unreadable(path, problem) from problem
    return export_module(module.eval(), source.inputs)


def _pickle(path: Path, source: Source) -> Export:
    import torch

    _require_inputs(source)
    if not source.trust:
        raise refuse_pickle(str(path), "Weights alone are no network: build it in a factory that loads them.")
    try:
        module = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as problem:  # whatever the pickle runs
        raise _unreadable(path, problem) from problem
    if not isinstance(module, torch.nn.Module):
        raise ConversionError(
            f"{path} holds an object of type {type(module).__name__}, not a torch.nn.Module",
            fix="Write a factory that builds the network and loads these weights: torch:package.module:factory.",
        )
    return export_module(module.eval(), source.inputs)


def _exported_program(path: Path, source: Source) -> Export:
    """An exported program knows its inputs: their shapes, and which axes are open."""
    import torch

    if source.inputs:
        raise ConversionError(f"{path} says itself what it reads", fix="Leave --input out.")
    try:
        program = torch.export.load(path)
    except Exception as problem:  # zip, JSON and pickle errors of all kinds
        raise _unreadable(path, problem) from problem
    try:
        model = export_program(program)
    except Exception as problem:  # torch raises a dozen kinds here
        raise exporter_failed("torch", problem) from problem
    inputs = _inputs_of(program)
    module = program.module()
    names = [value.name for value in model.graph.input]
    call = Call(inputs, by_place=True)
    return Export(
        model=model,
        exporter="torch.onnx.export(dynamo=True)",
        samples=record(lambda given: _run_flat(program, module, call, given), inputs, names),
        parameters={n: p.detach().numpy() for n, p in program.named_parameters()},
        normalisations=sum(n.op == "call_function" and "batch_norm" in str(n.target) for n in program.graph.nodes),
    )


def _inputs_of(program: torch.export.ExportedProgram) -> tuple[InputSpec, ...]:
    """The user's inputs: an open axis has the name of its symbol, and a size inside its range."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return tuple(_spec(name, values[name], program) for name in program.graph_signature.user_inputs)


def _spec(name: Any, value: torch.Tensor, program: torch.export.ExportedProgram) -> InputSpec:
    lowest = {str(symbol): int(limits.lower) for symbol, limits in program.range_constraints.items()}
    dims: list[Any] = list(value.shape)  # numbers, and symbols that torch's types call numbers too
    shape = tuple(d if type(d) is int else str(d) for d in dims)
    samples = {d: max(2 if at == 0 else 8, lowest.get(d, 1)) for at, d in enumerate(shape) if isinstance(d, str)}
    dtype = str(value.dtype).removeprefix("torch.")
    return InputSpec(name=str(name), dtype=dtype, shape=shape, samples=tuple(samples.items()))


def _run_flat(program: torch.export.ExportedProgram, module: Any, call: Call, arrays: Any) -> list[Array]:
    """Run with the arrays put into the structure of arguments that the program was made from."""
    import torch
    from torch.utils import _pytree

    leaves = [torch.from_numpy(np.asarray(array)) for array in arrays]
    positional, keywords = _pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    return call.run(lambda *given: module(*positional, **keywords), arrays)


def _unreadable(path: Path, problem: Exception) -> ConversionError:
    return ConversionError(
        f"torch cannot read {path}: {first_line(problem)}",
        fix="It reads .pt2 (torch.export.save), TorchScript (torch.jit.save) and pickled modules.",
        path=str(path),
    )
