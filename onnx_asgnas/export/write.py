"""`export_torch`: a model as a PyTorch module, in a file of code and a file of weights."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_asgnas.errors import OutputError
from onnx_asgnas.export.blocks import arranged
from onnx_asgnas.export.checking import Agreement, checked
from onnx_asgnas.export.classes import program_of
from onnx_asgnas.export.source import SourceFile
from onnx_asgnas.export.translate import outputs_of, steps_of
from onnx_asgnas.export.weights import write_weights
from onnx_asgnas.graph import ModelSource, TraceGraph


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What was written, and how far its outputs are from those of the model."""

    code: Path
    weights: Path
    lines: int
    classes: int
    agreement: Agreement


def export_torch(
    model: ModelSource | TraceGraph, output: str | os.PathLike[str], *, batches: Sequence[int] = (1, 3), seed: int = 0
) -> Export:
    """Write a model as a torch.nn.Module that needs PyTorch and safetensors alone, and check it in onnxruntime.

    `output` is a file NAME.py, beside which NAME.safetensors holds the weights, or a folder, in which they are called
    network.py or like the model's file. Both are written at the end, when the check at each of `batches` has passed.

    Raises UnsupportedOperatorError for an operator that cannot be written, VerificationError where the outputs differ.
    """
    graph = model if isinstance(model, TraceGraph) else TraceGraph.of(model)
    source = Path(model).stem if isinstance(model, str | os.PathLike) else ""
    code = _place(Path(output), source)
    weights = code.with_suffix(".safetensors")
    try:
        code.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=code.parent, prefix=f".{code.stem}.") as folder:
            draft = Path(folder) / code.name
            lines, classes = write_unchecked(graph, draft, source or graph.name or "an ONNX model")
            agreement = checked(graph, draft, batches, seed)
            os.replace(draft.with_suffix(".safetensors"), weights)
            os.replace(draft, code)
    except OSError as error:
        raise OutputError(f"{code} cannot be written: {error.strerror}", fix="Choose another path.") from None
    return Export(code=code, weights=weights, lines=lines, classes=classes, agreement=agreement)


def write_unchecked(graph: TraceGraph, code: Path, title: str) -> tuple[int, int]:
    """Write both files as they come; how many lines and classes the code has."""
    steps = steps_of(graph)
    program = program_of(arranged(steps, graph.inputs, outputs_of(graph, steps)), _module_attributes(), "Network")
    text = SourceFile(graph, program, steps).text(title)
    code.write_text(text, encoding="utf-8")
    write_weights(graph, program.tensors, code.with_suffix(".safetensors"))
    return text.count("\n"), len(program.classes)


def _place(output: Path, source: str) -> Path:
    """The file of code: the given one, or one in the given folder that can be imported."""
    if output.suffix == ".py":
        return output
    stem = re.sub(r"[^0-9a-zA-Z_]+", "_", source).strip("_").lower()
    return output / f"{stem if stem.isidentifier() else 'network'}.py"


def _module_attributes() -> frozenset[str]:
    from torch import nn

    return frozenset({*dir(nn.Module()), "forward"})
