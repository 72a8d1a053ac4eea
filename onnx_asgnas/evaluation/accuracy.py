"""Accuracy and other metrics of a model on data, in onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.graph.runtime import Arrays, run, session

if TYPE_CHECKING:
    from torch import Tensor

    from onnx_asgnas.training.data import Split, Targets
    from onnx_asgnas.training.metrics import Judge

_MOST_SAMPLES, _MOST_ELEMENTS = 256, 2**25
"""Of a batch, and of the largest output of a batch."""


def accuracy(
    model: ModelSource | TraceGraph, split: Split, *, batch_size: int | None = None, threads: int | None = None
) -> float:
    """The fraction of the samples, from 0 to 1, of which the first output is largest at the label (top-1).

    The output is [N, C] for labels [N], or [N, C, …] for labels [N, …] (of pixels, then each counts). A sample with NaN
    in its output counts as wrong. A model that does not leave the batch open runs at its own. Raises DataError where
    targets are no labels or do not fit the output, ModelError for a model that cannot be run.
    """
    graph = model if isinstance(model, TraceGraph) else TraceGraph.of(model)
    output = graph.outputs[0]
    right = total = 0
    for _, targets, found in _runs(graph, split, [output], batch_size, threads):
        hits = _hits(found[output], np.asarray(targets), output)
        right += int(hits.sum())
        total += hits.size
    if total == 0:
        raise DataError("there are no samples to measure accuracy on", fix="Give at least one.")
    return right / total


def measured(
    model: ModelSource | TraceGraph,
    split: Split,
    judge: Judge,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
) -> Judge:
    """A judge that has seen what a model gives on a split; raises DataError where a metric does not fit."""
    import torch

    graph = model if isinstance(model, TraceGraph) else TraceGraph.of(model)
    for inputs, targets, found in _runs(graph, split, list(graph.outputs), batch_size, threads):
        outputs = tuple(torch.from_numpy(np.ascontiguousarray(found[name])) for name in graph.outputs)
        judge.update(outputs[0] if len(outputs) == 1 else outputs, inputs, targets)
    return judge


def _runs(
    graph: TraceGraph, split: Split, outputs: list[str], batch_size: int | None, threads: int | None
) -> Iterator[tuple[dict[str, Tensor], Targets, Arrays]]:
    """Inputs, targets and outputs of a split, part by part, in onnxruntime."""
    active = session(graph.model, optimised=True, threads=threads)
    fixed = _fixed_batch(graph)
    for inputs, targets in split.batches(batch_size or _batch_of(graph)):
        arrays = {name: np.asarray(inputs[name]) for name in graph.inputs}
        samples = len(next(iter(arrays.values())))
        for part, count, start in _parts(arrays, samples, fixed):
            found = run(active, part, outputs)
            chosen = slice(start, start + count)
            yield (
                {name: tensor[chosen] for name, tensor in inputs.items()},
                {k: v[chosen] for k, v in targets.items()} if isinstance(targets, dict) else targets[chosen],
                {name: array[:count] for name, array in found.items()},
            )


def _batch_of(graph: TraceGraph) -> int:
    """How many samples run at once: fewer where an output of one is large."""
    largest = max((math.prod(graph.size(name) or (1,)) for name in graph.outputs), default=1)
    return max(1, min(_MOST_SAMPLES, _MOST_ELEMENTS // max(largest, 1)))


def _hits(scores: NDArray[Any], labels: NDArray[Any], output: str) -> NDArray[np.bool_]:
    """Which labels are where the scores are largest."""
    if labels.dtype.kind not in "iub":
        raise DataError(f"accuracy needs labels, and targets are {labels.dtype}", fix="Give whole numbers.")
    if scores.ndim < 2 or (scores.shape[0], *scores.shape[2:]) != labels.shape:
        raise DataError(
            f"output '{output}' of shape {list(scores.shape)} gives no class for labels of shape {list(labels.shape)}",
            fix="Accuracy needs an output [N, classes] for labels [N].",
            tensor=output,
        )
    hits: NDArray[np.bool_] = (scores.argmax(axis=1) == labels) & ~np.isnan(scores).any(axis=1)
    return hits


def _fixed_batch(graph: TraceGraph) -> int | None:
    """The batch that the model is made for; None where it is open."""
    shapes = [graph.shape(name) for name in graph.inputs]
    return next((shape[0] for shape in shapes if shape and shape[0] is not None), None)


def _parts(arrays: Mapping[str, NDArray[Any]], samples: int, size: int | None) -> Iterator[tuple[Arrays, int, int]]:
    """A batch in parts of `size`, the last one filled up with its last sample: arrays, true samples, and first one."""
    size = samples if size is None else size
    for start in range(0, samples, max(size, 1)):
        count = min(size, samples - start)
        chosen = np.minimum(np.arange(start, start + size), samples - 1)
        whole = count == size == samples
        yield {name: a if whole else a[chosen] for name, a in arrays.items()}, count, start
