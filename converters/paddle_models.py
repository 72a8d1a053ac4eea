"""PaddlePaddle by paddle2onnx: an inference model `paddle:FOLDER`, as paddle.jit.save has written it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_asgnas.converters.export import Array, Export, Source, record
from onnx_asgnas.converters.failing import exporter_failed, first_line
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.errors import ConversionError

_OPSET = 17
"""The newest operator set that paddle2onnx writes all its operators in."""


def convert(source: Source) -> Export:
    """Export the program in a folder, or that of a prefix `FOLDER/name`; it says itself what it reads.

    Raises ConversionError where there is none or several, and when paddle cannot load or paddle2onnx not write it.
    """
    import paddle
    import paddle2onnx

    if source.inputs:
        raise ConversionError(f"{source.body} says itself what it reads", fix="Leave --input out.")
    program = _program_in(Path(source.body))
    try:
        layer = paddle.jit.load(str(program.with_suffix("")))
    except Exception as problem:  # paddle's own kinds
        raise ConversionError(
            f"paddle cannot load {program}: {first_line(problem)}", fix="Save it again by paddle.jit.save."
        ) from problem
    layer.eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            paddle2onnx.export(
                str(program),
                str(program.with_suffix(".pdiparams")),
                str(file),
                opset_version=_OPSET,
                enable_optimize=False,  # optimising folds BatchNormalization into the convolutions
            )
            model = onnx.load(file)
        except (Exception, SystemExit) as problem:  # paddle2onnx raises kinds of its own, and may exit
            raise exporter_failed("paddle2onnx", problem) from problem
    inputs = tuple(map(_spec, model.graph.input))
    parameters = _parameters_of(layer, {tensor.name for tensor in model.graph.initializer})
    return Export(
        model=model,
        exporter=f"paddle2onnx {metadata.version('paddle2onnx')}",
        samples=record(lambda arrays: _run(layer, arrays), inputs, [str(spec.name) for spec in inputs]),
        parameters=parameters,
    )


def _parameters_of(layer: Any, written: set[str]) -> dict[str, Array]:
    """The trainable parameters by the names that the program has for them: loading numbers each name once more."""
    named = {p.name: np.asarray(p) for p in layer.parameters() if not p.stop_gradient}
    stems = {name: name.rpartition("_")[0] for name in named}
    return {stems[name] if stems[name] in written else name: values for name, values in named.items()}


def _program_in(path: Path) -> Path:
    """The file with the program: of a folder, or of a prefix."""
    folder, stem = (path, "*") if path.is_dir() else (path.parent, path.name)
    found = [file for suffix in (".json", ".pdmodel") for file in sorted(folder.glob(f"{stem}{suffix}"))]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} programs" if found else "no program (.json or .pdmodel)"
    raise ConversionError(f"{path} holds {what}", fix="Give the prefix that paddle.jit.save was given.", path=str(path))


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    """An open first dimension is N; another one has a name for its place."""
    dims = value.type.tensor_type.shape.dim
    shape = tuple(d.dim_value if d.dim_value > 0 else ("N" if at == 0 else f"D{at}") for at, d in enumerate(dims))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    for dim, size in zip(dims, shape, strict=True):
        if isinstance(size, str):
            dim.dim_param = size
    samples = tuple((d, 32) for d in shape[1:] if isinstance(d, str))
    return InputSpec(name=value.name, dtype=dtype, shape=shape, samples=samples)


def _run(layer: Any, arrays: Sequence[Array]) -> list[Array]:
    import paddle

    try:
        with paddle.no_grad():
            result = layer(*map(paddle.to_tensor, arrays))
    except Exception as problem:  # paddle's own kinds
        read = ", ".join(f"{list(array.shape)} {array.dtype}" for array in arrays)
        raise ConversionError(
            f"the program cannot run on {read}: {first_line(problem)}", fix="Save it with open dimensions that fit."
        ) from problem
    return [np.asarray(each) for each in (result if isinstance(result, list | tuple) else [result])]
