"""PyTorch modules, by torch's own exporter: `torch:package.module:factory?argument=value`.

The export keeps what later stages work on: parameter names, BatchNormalization (in inference form), an open batch axis.
It is then run beside its source. torch is imported only when a source asks for it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.converters.agreement import largest_difference, run_onnx
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.converters.registry import Conversion
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.graph import remove_dead
from onnx_asgnas.specs import call, load_attribute, parse_spec, working_directory_on_path

if TYPE_CHECKING:
    import torch

OPSET = 20
"""What onnxruntime-training can load, and torch's exporter writes without a conversion afterwards."""


def convert(body: str, inputs: Sequence[InputSpec]) -> Conversion:
    """Export the module that `body` names, and compare it with its source at two batch sizes.

    The named object is a function or class that gives a torch.nn.Module, or a module itself. Raises ConversionError
    when it is missing or of another kind, when torch cannot export it, or when the outputs differ by more than 1e-4.
    """
    if not inputs:
        raise ConversionError(
            "a torch: source needs to know what the module reads", fix='Add --input "x:float32[N,3,32,32]".'
        )
    module = _load(body)
    sizes = _sample_sizes(inputs)
    names = _argument_names(module, inputs)
    model = _export(module, inputs, names, sizes)
    _strip_traces(model)
    _drop_absent_biases(model)
    remove_dead(model.graph)
    _check(model)
    batch_sizes, difference = _compare(module, model, inputs, names, sizes)
    return Conversion(model=model, max_relative_difference=difference, batch_sizes=batch_sizes)


def _load(body: str) -> torch.nn.Module:
    """The module in eval mode, on the CPU."""
    import torch

    spec = parse_spec(body, ConversionError)
    found = load_attribute(spec.name, ConversionError)
    what = f"torch:{spec.name}"
    if isinstance(found, torch.nn.Module) and not spec.arguments:
        return found.cpu().eval()
    if isinstance(found, torch.nn.Module) or not callable(found):
        raise ConversionError(
            f"{what} is of type {type(found).__name__}, not a function that gives a module", fix=_FACTORY
        )
    try:
        with working_directory_on_path():
            module = call(found, spec.arguments, what=what, error=ConversionError)
    except ConversionError:
        raise
    except Exception as problem:  # the user's code
        raise ConversionError(
            f"{what} fails: {type(problem).__name__}: {problem}", fix="Call it in Python to see where."
        ) from problem
    if not isinstance(module, torch.nn.Module):
        raise ConversionError(
            f"{what} gives an object of type {type(module).__name__}, not a torch.nn.Module", fix=_FACTORY
        )
    return module.cpu().eval()


def _sample_sizes(inputs: Sequence[InputSpec]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for spec in inputs:
        for symbol, size in spec.sample_sizes().items():
            stated = symbol in dict(spec.samples)
            is_batch = symbol == spec.batch_symbol
            if stated or is_batch or symbol not in sizes:
                sizes[symbol] = size
    return sizes


def _argument_names(module: torch.nn.Module, inputs: Sequence[InputSpec]) -> list[str] | None:
    """The parameters of `forward` that the inputs go to by name; None: they go by position."""
    parameters = inspect.signature(module.forward).parameters
    names = [spec.name for spec in inputs]
    if any(name is None or name not in parameters for name in names):
        return None
    return [str(name) for name in names]


def _arguments(
    inputs: Sequence[InputSpec], names: list[str] | None, arrays: Sequence[NDArray[np.generic]]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    import torch

    tensors = [torch.from_numpy(array) for array in arrays]
    return (tuple(tensors), {}) if names is None else ((), dict(zip(names, tensors, strict=True)))


def _export(
    module: torch.nn.Module, inputs: Sequence[InputSpec], names: list[str] | None, sizes: dict[str, int]
) -> onnx.ModelProto:
    import torch

    symbols = {symbol: torch.export.Dim(symbol) for spec in inputs for symbol in spec.symbols}
    open_axes = [{axis: symbols[d] for axis, d in enumerate(spec.shape) if isinstance(d, str)} for spec in inputs]
    generator = np.random.default_rng(0)
    positional, keywords = _arguments(inputs, names, [spec.random(sizes, generator) for spec in inputs])
    _try_forward(module, positional, keywords)
    shapes: Any = tuple(open_axes) if names is None else dict(zip(names, open_axes, strict=True))
    given = [spec.name for spec in inputs]
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                positional,
                kwargs=keywords or None,
                dynamo=True,
                optimize=False,  # optimising folds BatchNormalization into the convolutions
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=[str(name) for name in given] if None not in given else None,
                verbose=False,
            )
    except Exception as problem:  # torch raises a dozen kinds here
        raise ConversionError(
            f"torch cannot export this module: {_first_cause(problem)}",
            fix="A dimension that the module fixes must be a number in --input; branches on data cannot be exported.",
        ) from problem
    if program is None:
        raise ConversionError("torch's exporter gave no model", fix="Try another version of torch.")
    model: onnx.ModelProto = program.model_proto
    return model


def _try_forward(
    module: torch.nn.Module, positional: tuple[torch.Tensor, ...], keywords: dict[str, torch.Tensor]
) -> list[NDArray[np.generic]]:
    """The module's output tensors, flat and in order; raises ConversionError when it refuses the inputs."""
    import torch
    from torch.utils import _pytree

    try:
        with torch.no_grad():
            result = module(*positional, **keywords)
    except Exception as problem:  # the user's code
        read = ", ".join(f"{list(t.shape)} {t.dtype}" for t in (*positional, *keywords.values()))
        raise ConversionError(
            f"the module cannot run on {read}: {type(problem).__name__}: {_first_line(problem)}",
            fix="Does --input say the shapes and types, and the order, that its forward takes?",
        ) from problem
    return [leaf.numpy() for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _compare(
    module: torch.nn.Module,
    model: onnx.ModelProto,
    inputs: Sequence[InputSpec],
    names: list[str] | None,
    sizes: dict[str, int],
) -> tuple[tuple[int, ...], float]:
    """Run both at the traced batch size and at another one, where the batch is open; the largest difference."""
    batch = {spec.batch_symbol for spec in inputs} - {None}
    generator = np.random.default_rng(1)
    outputs = [value.name for value in model.graph.output]
    fed = [value.name for value in model.graph.input]
    tried: list[int] = []
    worst = 0.0
    for more in (0, 3) if batch else (0,):
        now = {symbol: size + more if symbol in batch else size for symbol, size in sizes.items()}
        arrays = [spec.random(now, generator) for spec in inputs]
        try:
            expected = _try_forward(module, *_arguments(inputs, names, arrays))
        except ConversionError as problem:
            if more:
                problem.fix = f"It runs at a batch of {tried[0]}: if that is fixed, write the number in --input."
            raise
        by_name = dict(zip(names or fed, arrays, strict=names is not None))
        got = run_onnx(model, {name: array for name, array in by_name.items() if name in fed})
        worst = max(worst, largest_difference(expected, got, outputs))
        tried.append(arrays[0].shape[0] if arrays[0].ndim else 1)
    return tuple(tried), worst


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about the machine and the source: stack traces with paths, and its own names."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    functions = [node for function in model.functions for node in function.node]
    for item in (model, graph, *graph.node, *graph.initializer, *values, *model.functions, *functions):
        del item.metadata_props[:]
        item.ClearField("doc_string")


def _drop_absent_biases(model: onnx.ModelProto) -> None:
    """Take the zero bias away that the exporter computes for a convolution without one.

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


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as problem:
        raise ConversionError(
            f"the exported model is not valid ONNX: {_first_line(problem)}", fix="Try another version of torch."
        ) from problem


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints, warnings and log lines to itself."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _first_cause(problem: BaseException) -> str:
    """The innermost reason: the exporter wraps it in pages of advice."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {_first_line(problem)}"


def _first_line(problem: BaseException) -> str:
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), "no message")


_FACTORY = "Name a function or class that gives a torch.nn.Module: torch:package.module:name."
