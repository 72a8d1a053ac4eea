"""Training of a model as it is, with the loop and the engines of a search: for a compact model, or as a baseline."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from onnx_asgnas.config import TrainConfig
from onnx_asgnas.errors import InputError
from onnx_asgnas.graph import ModelSource, TraceGraph, load_model, save_model, write_atomically
from onnx_asgnas.runs import (
    Listener,
    RunDirectory,
    data_for,
    loop_for,
    module_for,
    objective_for,
    threads_of_torch,
    try_batch,
    versions,
)
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import Dataset
from onnx_asgnas.training.distributed import started_processes
from onnx_asgnas.training.events import Event, EventLog
from onnx_asgnas.training.losses import Objective
from onnx_asgnas.training.metrics import Evaluation, evaluate, evaluation_batch

logger = logging.getLogger(__name__)

COMMAND = "finetune"


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuned:
    """What a plain training gives: model, events of the epochs, and its figures on the test data before and after.

    Without test data there are no figures.
    """

    model: onnx.ModelProto
    history: list[Event]
    before: Evaluation | None
    after: Evaluation | None
    config: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "before": None if self.before is None else asdict(self.before),
            "after": None if self.after is None else asdict(self.after),
            "history": [event.to_dict() for event in self.history],
            "config": asdict(self.config),
            "seconds": self.history[-1].seconds,
            "versions": versions(),
        }


def finetune(
    model: ModelSource,
    data: str,
    *,
    run_dir: str | Path | None = None,
    on_event: Listener | None = None,
    **options: Any,
) -> FineTuned:
    """Train a model as it is. `data` and the further options are those of TrainConfig.

    With a `run_dir` it holds the trained model, checkpoints, events and figures, and `resume_finetune` goes on with it.
    What does not fit raises an InputError before the first file is written.
    """
    config = TrainConfig.of(data=data, **options)
    source = load_model(model)
    run = None if run_dir is None else RunDirectory(Path(run_dir))
    if run is not None:
        run.must_be_empty(COMMAND)
    with threads_of_torch(config.threads):
        module, goal, dataset = _prepared(source, config)
        try_batch(module, goal, dataset, config)
        before, test = None, dataset.test
        if test is not None:
            before = evaluate(module, test, goal, config.metrics, evaluation_batch(config.batch_size))
        if run is not None:
            run.create(config, source, {run.training: json.dumps(before and asdict(before)).encode()})
        return _train(run, config, module, goal, dataset, before, on_event)


def resume_finetune(run_dir: str | Path, *, on_event: Listener | None = None) -> FineTuned:
    """Go on with a training that stopped, from its last checkpoint."""
    run = RunDirectory(Path(run_dir))
    start = f"onnx-asgnas {COMMAND} MODEL --data DATA -o RUN"
    run.must_hold(run.config, run.source, run.training, start=start)
    config = TrainConfig.read(run.config)
    facts: Mapping[str, Any] | None = json.loads(run.training.read_text(encoding="utf-8"))
    with threads_of_torch(config.threads):
        module, goal, dataset = _prepared(load_model(run.source), config)
        before = None if facts is None else Evaluation(**facts)
        return _train(run, config, module, goal, dataset, before, on_event)


def _prepared(source: onnx.ModelProto, config: TrainConfig) -> tuple[OnnxModule, Objective, Dataset]:
    if started_processes().several:
        raise InputError(
            "finetune trains in one process, and several were started",
            fix="Start it without torchrun; only search takes several processes.",
        )
    torch.manual_seed(config.seed)
    graph = TraceGraph.of(source)
    module = module_for(graph, config)
    return module, objective_for(module, config), data_for(graph, config.data, config.loss)


def _train(
    run: RunDirectory | None,
    config: TrainConfig,
    module: OnnxModule,
    goal: Objective,
    dataset: Dataset,
    before: Evaluation | None,
    on_event: Listener | None,
) -> FineTuned:
    checkpoints = None
    if run is not None:
        checkpoints = Checkpoints(run.checkpoints)
        on_event = EventLog(run.events, on_event)
    history = loop_for(module, _optimizer(module, config), dataset, goal, config, on_event, checkpoints).run()
    after = Evaluation.of(history[-1])
    result = FineTuned(model=module.to_onnx(), history=history, before=before, after=after, config=config)
    if run is not None:
        save_model(result.model, run.trained)
        write_atomically(run.report, (json.dumps(result.to_dict(), indent=1) + "\n").encode())
    return result


def _optimizer(module: OnnxModule, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if config.variant == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    kind = torch.optim.Adam if config.variant == "adam" else torch.optim.AdamW
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)
