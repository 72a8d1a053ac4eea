"""Does the written network give what the model gives in onnxruntime."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_asgnas.errors import ModelError, VerificationError
from onnx_asgnas.evaluation.difference import relative_difference
from onnx_asgnas.evaluation.half_precision import is_half_precision
from onnx_asgnas.evaluation.inputs import made_up_inputs
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import Arrays, run, session

_TOLERANCE = 1e-5
_HALF_TOLERANCE = 5e-3
"""What a network in half precision may differ by, as in `verify`: the order of its sums is another."""


def checked_difference(graph: TraceGraph, code: Path, batches: Sequence[int], seed: int = 0) -> tuple[float, list[int]]:
    """The largest relative difference on made-up inputs, and the batch sizes that the model takes.

    Raises VerificationError where it is over 1e-5 (in half precision 5e-3).
    """
    network = load_network(code)
    active = session(graph.model)
    worst, taken = 0.0, []
    refusal: ModelError | None = None
    for batch in batches:
        feed = made_up_inputs(graph, batch, seed)
        try:
            expected = run(active, feed)
        except ModelError as error:  # exporters bake a batch in
            refusal = error
            continue
        got = outputs_of(network, feed, graph.outputs)
        difference = max(relative_difference(expected[name], got[name]) for name in graph.outputs)
        worst, taken = max(worst, difference), [*taken, batch]
        limit = _HALF_TOLERANCE if is_half_precision(graph.model) else _TOLERANCE
        if not difference <= limit:
            raise VerificationError(_explained(expected, got, difference, batch), fix="Please report this network.")
    if refusal is not None and not taken:
        raise refusal
    return worst, taken


def load_network(code: Path) -> Any:
    """The network of a written file, with its weights."""
    spec = importlib.util.spec_from_file_location("_exported_network", code)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module.load()


def outputs_of(network: Any, feed: Arrays, names: Sequence[str]) -> Arrays:
    """What the network gives for these inputs, by the names of the model's outputs."""
    import torch

    with torch.no_grad():
        given = network(*(torch.from_numpy(np.array(array)) for array in feed.values()))
    values = given if isinstance(given, tuple) else (given,)
    return {name: _numpy(value) for name, value in zip(names, values, strict=True)}


def _numpy(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        return np.asarray(value, np.int64)
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()


def _explained(expected: Arrays, got: Arrays, difference: float, batch: int) -> str:
    size = f"{difference:.2g} relative to its largest value" if math.isfinite(difference) else "an infinite amount"
    name = max(expected, key=lambda each: relative_difference(expected[each], got[each]))
    return f"the written network differs from the model by {size} in output '{name}' at batch {batch}"
