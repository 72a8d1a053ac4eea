"""Batch normalisations that an exporter has folded into convolutions, put back as identities."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_EPSILON = 1e-5
_ROLES = ("input", "weight", "bias", "running_mean", "running_var")


def unfold(model: onnx.ModelProto) -> int:
    """Put a BatchNormalization behind every convolution that may have lost its own; how many there are now more.

    Such a convolution has a bias (a folded normalisation leaves one), float32 weights of its own, and no normalisation
    behind it. The new one has scale 1, bias 0, mean 0 and a variance for which variance + epsilon is exactly 1 in
    float32, so that it changes no bit. It trains as any other: in training form it normalises with what it sees.
    """
    graph = model.graph
    weights = {t.name: t for t in graph.initializer}
    readers = _readers(graph)
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if not _may_have_lost(node, weights, readers):
            continue
        channels = weights[node.input[2]].dims[0]
        stem = _fresh(f"{node.input[1].removesuffix('.weight')}.unfolded", taken)
        result = node.output[0]
        node.output[0] = f"{stem}.input"
        values = {
            "weight": np.ones(channels, np.float32),
            "bias": np.zeros(channels, np.float32),
            "running_mean": np.zeros(channels, np.float32),
            "running_var": np.full(channels, _variance(), np.float32),
        }
        names = [f"{stem}.{role}" for role in values]
        graph.initializer.extend(map(numpy_helper.from_array, values.values(), names))
        nodes.append(
            helper.make_node("BatchNormalization", [node.output[0], *names], [result], name=stem, epsilon=_EPSILON)
        )
    added = len(nodes) - len(graph.node)
    if added:
        del graph.node[:]
        graph.node.extend(nodes)
    return added


def _may_have_lost(
    node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], readers: dict[str, list[onnx.NodeProto]]
) -> bool:
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3 or node.input[2] not in weights:
        return False
    if weights[node.input[2]].data_type != onnx.TensorProto.FLOAT or node.input[1] not in weights:
        return False
    return not any(reader.op_type == "BatchNormalization" for reader in readers.get(node.output[0], ()))


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _variance() -> np.floating[Any]:
    """The largest float32 below 1 whose sum with epsilon is 1 in float32."""
    one, epsilon = np.float32(1), np.float32(_EPSILON)
    variance: np.floating[Any] = one - epsilon
    while variance + epsilon < one:
        variance = np.nextafter(variance, one)
    while variance + epsilon > one:
        variance = np.nextafter(variance, np.float32(0))
    return variance


def _fresh(stem: str, taken: set[str]) -> str:
    """The stem, numbered where a tensor of that name, or below it, is there already."""
    name, count = stem, 0
    while not taken.isdisjoint({f"{name}.{role}" for role in _ROLES}):
        count += 1
        name = f"{stem}_{count}"
    taken.update(f"{name}.{role}" for role in _ROLES)
    return name
