"""ONNX files as a source: older operator sets are brought up to date, local functions are inlined."""

from __future__ import annotations

import os

import onnx

from onnx_asgnas.converters.agreement import TOLERANCE, largest_difference, run_onnx
from onnx_asgnas.converters.export import OPSET
from onnx_asgnas.errors import ConversionError, ModelError
from onnx_asgnas.graph import load_model
from onnx_asgnas.graph.functions import inline_functions
from onnx_asgnas.graph.runtime import random_inputs

_OLDEST = 13
"""From this operator set on, nothing is lost by staying: axes are inputs, and every runtime of today loads it."""


def read_onnx(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model with its external data in memory, in a form of today; and what was done to it, a sentence each.

    A model that needs nothing is as it was. One whose operator set cannot be raised with equal outputs stays at it.
    """
    model = load_model(path)
    notes = []
    if model.functions:
        count = len(model.functions)
        initializers = list(model.graph.initializer)
        model = inline_functions(model)
        model.graph.initializer.extend(initializers)
        notes.append(f"{count - len(model.functions)} of {count} local functions were inlined")
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version < _OLDEST:
        raised = _raised(model)
        if raised is None:
            notes.append(f"operator set {version} is kept: it cannot be raised to {OPSET} with equal outputs")
        else:
            model = raised
            notes.append(f"operator set {version} was raised to {OPSET}; the outputs are the same")
    return model, tuple(notes)


def _raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model in the operator set of today; None where that fails, or gives something else."""
    try:
        raised = onnx.version_converter.convert_version(model, OPSET)
    except Exception:  # it raises RuntimeError and its own kinds, for operators that it has no rule for
        return None
    names = [value.name for value in model.graph.output]
    feeds = random_inputs(model, batch=2)
    try:
        difference = largest_difference(run_onnx(model, feeds), run_onnx(raised, feeds), names)
    except (ConversionError, ModelError):
        return None
    return raised if difference <= TOLERANCE else None
