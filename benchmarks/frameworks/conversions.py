"""A network from one framework: converted, analysed, and half of its channels taken out."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.frameworks import groups, torch_networks, weights
from benchmarks.frameworks.contenders import IMAGE, Files, Framework, Network
from onnx_asgnas.config import Target
from onnx_asgnas.converters import convert_with_report
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import run as run_session
from onnx_asgnas.graph.runtime import session
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import SearchSpace, analyze

_TIMES = 2
_IMAGES = 16


def run(files: Files, network: Network, framework: Framework) -> dict[str, Any]:
    """Convert a network whose normalisations do something, and say what analysis and a cut make of it."""
    fresh = network.fresh(width=network.width, seed=0)
    file = weights.save(weights.shaken(fresh), files.folder / "weights" / f"{network.name}-shaken.npz")
    source = framework.source(network.name, file, network.width)
    times = []
    for _ in range(_TIMES):
        before = time.perf_counter(), _processor_seconds()
        found = convert_with_report(source, inputs=framework.inputs)
        times.append((time.perf_counter() - before[0], _processor_seconds() - before[1]))
    seconds, processor = (round(min(column), 2) for column in zip(*times, strict=True))
    graph = TraceGraph.of(found.model)
    return {
        "seconds": seconds,
        "processor": processor,
        "exporter": found.exporter,
        "difference": found.max_relative_difference,
        "differs": _from_pytorch(found.model, network, framework, str(file)),
        "folded": found.folded,
        "lost": len(found.names.lost),
        "operators": len(found.model.graph.node),
        "normal": len(graph.nodes),
        "types": dict(Counter(node.op_type for node in graph.nodes).most_common()),
        **_space(analyze(graph, mode="erase"), analyze(graph, mode="prune"), weights.load(file)),
        "pruned": _pruned(graph),
    }


def _processor_seconds() -> float:
    """What this process and those that it started have used: the figure to look at while the machine is busy."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _space(erase: SearchSpace, prune: SearchSpace, common: weights.Weights) -> dict[str, Any]:
    """What may leave, in numbers and as hashes that are equal where it is the same."""
    by_reason = Counter(s.reason for s in erase.structures if not s.erasable)
    found, channels = groups.structures(erase), groups.channel_groups(prune, common)
    return {
        "structures": {
            "erasable": len(found),
            "minimal": sum(minimal for _, minimal, _, _ in found),
            "kept": dict(by_reason),
            "hash": groups.fingerprint(found),
        },
        "channels": {
            "total": prune.channel_groups.total,
            "free": len(channels),
            "hash": groups.fingerprint(channels),
        },
        "params": prune.params,
        "macs": prune.macs,
    }


def _pruned(graph: TraceGraph) -> dict[str, Any]:
    """What a cut of half the channels of every layer leaves, and how exact it is."""
    result = cut(graph, Target(uniform=0.5))
    check = result.verify()
    return {
        **result.kept,
        "operators": len(result.compact.graph.node),
        "difference": check.max_relative_difference,
        "moved": check.moved,
    }


def _from_pytorch(model: onnx.ModelProto, network: Network, framework: Framework, file: str) -> float:
    """The largest difference from what PyTorch gives with these weights, over the largest output."""
    module = getattr(torch_networks, network.name)(file, network.width)
    images = np.random.default_rng(0).standard_normal((_IMAGES, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    (got,) = run_session(session(model, threads=1), {IMAGE: framework.batch(images)}).values()
    return float(np.abs(expected - got).max() / np.abs(expected).max())
