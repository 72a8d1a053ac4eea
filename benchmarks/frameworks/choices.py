"""What H2SPG chooses from each framework's model, early and at a low rate, before rounding has grown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.frameworks import groups, weights
from benchmarks.frameworks.contenders import Files, Network
from benchmarks.frameworks.losses import RATES
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.runs import data_for
from onnx_asgnas.space import analyze
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.h2spg import H2SPG
from onnx_asgnas.training.loop import loss_probe
from onnx_asgnas.training.losses import objective

_BATCH, _STEPS, _SELECT_AT = 32, 60, 0.15
_MOMENTUM, _DECAY = 0.9, 1e-4

Choice = tuple[dict[frozenset[object], float], set[frozenset[object]]]
"""The redundancy of each group, and the groups that are chosen."""


def run(files: Files, network: Network, frameworks: Sequence[str]) -> dict[str, Any]:
    """How far the redundancies of each contender are from the first one's, and how many groups only one chooses."""
    torch.set_num_threads(1)
    common = weights.load(files.weights(network, 0))
    given = files.contenders(network, frameworks, 0)
    found = {name: _choice(network, common, model, data) for name, (model, data) in given.items()}
    first, chosen = next(iter(found.values()))
    return {
        "range": max(first.values()) - min(first.values()),
        "contenders": {
            name: {
                "chosen": len(mine),
                "only_one": len(mine ^ chosen) // 2,
                "differs": max(abs(first[group] - value) for group, value in redundancy.items()),
            }
            for name, (redundancy, mine) in found.items()
        },
    }


def _choice(network: Network, common: weights.Weights, model: Path, data: Path) -> Choice:
    graph = TraceGraph.of(model)
    module, space = OnnxModule(graph, threads=1), analyze(graph, mode=network.mode)
    training = data_for(graph, f"npz:{data}").train
    goal = objective("cross_entropy", inputs=graph.inputs, outputs=graph.outputs)
    optimizer = H2SPG(
        module,
        space,
        target=network.target,
        total_steps=_STEPS,
        lr=RATES[0],
        momentum=_MOMENTUM,
        weight_decay=_DECAY,
        select_at=_SELECT_AT,
        zero_at=2 * _SELECT_AT,
        evaluate=loss_probe(module, training, goal, 0, training_batch=_BATCH),
    )
    for inputs, labels in training.batches(_BATCH, shuffle=True, seed=0, epoch=0):
        assert isinstance(labels, torch.Tensor)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module.train()(**inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if optimizer.selection is not None:
            break
    assert optimizer.selection is not None and optimizer.redundancy is not None
    names = groups.kernels_of(space, common)
    redundancy = dict(zip(names, np.asarray(optimizer.redundancy).tolist(), strict=True))
    return redundancy, {names[index] for index in optimizer.selection.chosen}
