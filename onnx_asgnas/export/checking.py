"""Does the written network give what the model gives in onnxruntime."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.errors import ModelError, VerificationError
from onnx_asgnas.evaluation.difference import relative_difference
from onnx_asgnas.evaluation.half_precision import is_half_precision
from onnx_asgnas.evaluation.reference import outputs_in_double
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.inputs import made_up_inputs
from onnx_asgnas.graph.runtime import Arrays, run, session

_TOLERANCE = 1e-5
_HALF_TOLERANCE = 5e-3
"""What a network in half precision may differ by, as in `verify`: the order of its sums is another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far the written network is from the model, at which batch sizes.

    `largest` is held to the tolerance. Where the rounding of float32 moves the network by more, it is the difference
    from the standard's reference with both in float64, and `rounded` that from onnxruntime in float32; else both are
    the latter.
    """

    largest: float
    rounded: float
    batches: tuple[int, ...]


def checked(graph: TraceGraph, code: Path, batches: Sequence[int], seed: int = 0) -> Agreement:
    """Compare the written network with the model in onnxruntime on made-up inputs, at the batch sizes that it takes.

    Raises VerificationError where they differ by over 1e-5, relative (in half precision by 5e-3).
    """
    trials = _trials(graph, batches, seed)
    tolerance = _HALF_TOLERANCE if is_half_precision(graph.model) else _TOLERANCE
    network = load_network(code)
    rounded = largest = _largest(graph, network, trials)
    if not rounded <= tolerance:
        largest = _largest_in_double(graph, network.double(), trials)
    if not largest <= tolerance:
        size = f"{largest:.2g} relative to its largest value" if math.isfinite(largest) else "an infinite amount"
        raise VerificationError(
            f"the written network differs from the model by {size}, and {tolerance:g} is allowed",
            fix="Nothing was written: please report this network.",
        )
    return Agreement(largest=largest, rounded=rounded, batches=tuple(batch for batch, _, _ in trials))


_Trial = tuple[int, Arrays, Arrays]
"""A batch size, the inputs, and what the model gives."""


def _trials(graph: TraceGraph, batches: Sequence[int], seed: int) -> list[_Trial]:
    """The runs of the model; a batch that it refuses is left out, for exporters bake one in."""
    active = session(graph.model)
    found: list[_Trial] = []
    refusals: list[ModelError] = []
    for batch in batches:
        feed = made_up_inputs(graph, batch, seed)
        try:
            found.append((batch, feed, run(active, feed)))
        except ModelError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return found


def _largest(graph: TraceGraph, network: Any, trials: list[_Trial]) -> float:
    found = 0.0
    for _, feed, expected in trials:
        got = outputs_of(network, feed, graph.outputs)
        found = max(found, *(relative_difference(expected[name], got[name]) for name in graph.outputs))
    return found


def _largest_in_double(graph: TraceGraph, network: Any, trials: list[_Trial]) -> float:
    """The difference from the standard's reference, both in float64; infinite for code that fixes float32 somewhere."""
    wide = [(batch, {name: _wide(array) for name, array in feed.items()}) for batch, feed, _ in trials]
    try:
        return _largest(graph, network, [(batch, feed, outputs_in_double(graph.model, feed)) for batch, feed in wide])
    except RuntimeError:
        return math.inf


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype == np.float32 else array


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
        given = network(*map(_tensor, feed.values()))
    values = given if isinstance(given, tuple) else (given,)
    return {name: _numpy(value) for name, value in zip(names, values, strict=True)}


def _tensor(array: NDArray[Any]) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _numpy(value: Any) -> Any:
    import torch

    if value.dtype == torch.bfloat16:
        return value.float().numpy().astype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    return value.numpy()
