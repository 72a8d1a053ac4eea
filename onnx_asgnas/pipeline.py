"""The stages one after another over a run directory: analyze → train → construct → verify → benchmark → report.

Each stage reads files of the run directory and writes one, so a run that stopped goes on at the stage that it was in.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.errors import AsgnasError, SpaceError
from onnx_asgnas.evaluation import Benchmark, Verification, benchmark, verify
from onnx_asgnas.graph import ModelSource, TraceGraph, load_model, save_model, write_atomically
from onnx_asgnas.report import RunReport, channel_fates, chosen_by_layer, operator_times, watched_groups, write_report
from onnx_asgnas.runs import (
    Listener,
    RunDirectory,
    data_for,
    judge_for,
    loop_for,
    module_for,
    objective_for,
    threads_of_torch,
    try_batch,
    versions,
)
from onnx_asgnas.space import SearchSpace, Selection, analyze
from onnx_asgnas.space.gates import add_gates
from onnx_asgnas.surgery import construct, cut
from onnx_asgnas.surgery.restoring import restored
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import Dataset
from onnx_asgnas.training.distributed import Processes, joined, own_device
from onnx_asgnas.training.events import EventLog, read_events
from onnx_asgnas.training.h2spg import H2SPG
from onnx_asgnas.training.loop import Rebuild, loss_probe, steps_of
from onnx_asgnas.training.loss_probe import samples_for
from onnx_asgnas.training.losses import Objective
from onnx_asgnas.training.narrowing import Narrowed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """What a search gives: the compact model, its report, and where the files are."""

    run_dir: Path
    compact: onnx.ModelProto
    report: RunReport


def search(
    model: ModelSource,
    data: str,
    target: Target,
    *,
    run_dir: str | Path,
    on_event: Listener | None = None,
    **options: Any,
) -> SearchResult:
    """From a network that is too big to a verified smaller one, in one training run.

    `data` and the further options are those of SearchConfig. Everything is checked before the first file is written:
    a model, data set or target that does not fit raises an InputError and leaves nothing behind.
    """
    run = RunDirectory(Path(run_dir))
    run.must_be_empty()
    start = _started(model, SearchConfig.of(data=data, target=target, **options))
    run.create(start.config, start.source, {run.space: start.space.to_json().encode()})
    return _run_stages(run, start, on_event)


def resume(run_dir: str | Path, *, on_event: Listener | None = None) -> SearchResult:
    """Go on with a run that stopped, from its last checkpoint or at the stage that it was in."""
    run = RunDirectory(Path(run_dir))
    run.must_hold(run.config, run.source, run.space, start="onnx-asgnas search MODEL --data DATA TARGET -o RUN")
    return _run_stages(run, _found(run), on_event)


def assist(model: ModelSource, data: str, target: Target, *, run_dir: str | Path, **options: Any) -> None:
    """What the other processes do while the first one calls `search` with the same arguments: train along."""
    start = _started(model, SearchConfig.of(data=data, target=target, **options))
    with threads_of_torch(start.config.threads):
        _train(RunDirectory(Path(run_dir)), start, None)


def assist_resume(run_dir: str | Path) -> None:
    """What the other processes do while the first one calls `resume`."""
    run = RunDirectory(Path(run_dir))
    start = _found(run)
    if not run.trained.exists():
        with threads_of_torch(start.config.threads):
            _train(run, start, None)


@dataclass(frozen=True, slots=True)
class _Start:
    """What the stages start from."""

    config: SearchConfig
    source: onnx.ModelProto
    space: SearchSpace
    dataset: Dataset


def _started(model: ModelSource, config: SearchConfig) -> _Start:
    """All that a new run needs, checked."""
    source = add_gates(model) if config.gates else load_model(model)
    graph = TraceGraph.of(source)
    module = module_for(graph, config)
    space = _space(graph, module, config)
    dataset = data_for(graph, config.data, config.loss)
    _check_before_training(space, config)
    try_batch(module, objective_for(module, config), dataset, config)
    return _Start(config, source, space, dataset)


def _found(run: RunDirectory) -> _Start:
    """What a run directory holds."""
    config = SearchConfig.read(run.config)
    source = load_model(run.source)
    return _Start(config, source, SearchSpace.read(run.space, source), data_for(source, config.data, config.loss))


def _run_stages(run: RunDirectory, start: _Start, on_event: Listener | None) -> SearchResult:
    config, space, dataset = start.config, start.space, start.dataset
    with threads_of_torch(config.threads):
        if not run.trained.exists():
            _train(run, start, EventLog(run.events, on_event))
        if not run.compact.exists():
            save_model(construct(run.trained, space), run.compact)
        verification = _verify(run, space, dataset)
        verification.require()
        comparison = benchmark(
            run.trained,
            run.compact,
            split=dataset.test,
            judge=judge_for(TraceGraph.of(run.source), config.loss, config.metrics),
            verification=verification,
            threads=config.threads,
        )
    report = _report(run, config, space, verification, comparison)
    write_report(run.path, report)
    return SearchResult(run_dir=run.path, compact=load_model(run.compact), report=report)


def _space(graph: TraceGraph, module: OnnxModule, config: SearchConfig) -> SearchSpace:
    """What may leave; channels of which some weight does not train are never at zero, so their layers stay."""
    space = analyze(graph, mode=config.mode, protect=config.protect, strict=config.strict)
    if config.mode == "erase":
        return space
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    fixed = {axis.owner for axis in space.channels.axes if axis.zeroed} - trained
    if not fixed:
        return space
    nodes = [node.name for node in graph.nodes if not fixed.isdisjoint(node.input)]
    logger.info("%d operators keep their channels, since %s do not train", len(nodes), ", ".join(sorted(fixed)))
    return analyze(graph, mode=config.mode, protect=(*config.protect, *map(escape, nodes)), strict=config.strict)


def _check_before_training(space: SearchSpace, config: SearchConfig) -> None:
    """What would otherwise fail only later: no group that may leave, a target too high."""
    if not space.groups:
        reasons = sorted({s.reason for s in space.structures})
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        if not reasons:
            none = "no joint (Add, Concat) has an operand of its own", "no channels may leave whose weights train"
            why = f": {none[config.mode == 'prune']}"
        raise SpaceError(
            f"this model has nothing to remove{why}",
            fix=f"onnx-asgnas analyze MODEL --mode {config.mode} --explain shows more.",
        )
    space.choose(
        lambda chosen: np.zeros(len(space.groups)),
        config.target,
        hierarchy=config.method != "dhspg",
        round_to=config.round_to,
        min_channels=config.min_channels,
    )


def _train(run: RunDirectory, start: _Start, on_event: Listener | None) -> None:
    """Train, with the other processes if there are any; the first one writes what came of it."""
    with joined(start.config.device) as processes:
        config = replace(start.config, device=own_device(start.config.device))
        torch.manual_seed(config.seed)
        assert start.space.graph is not None
        module = module_for(start.space.graph, config)
        goal = objective_for(module, config)
        optimizer = _optimizer(module, goal, start, processes)
        loop = loop_for(
            module,
            optimizer,
            start.dataset,
            goal,
            config,
            on_event if processes.first else None,
            Checkpoints(run.checkpoints),
            rebuild=rebuilding(start.space, config),
            processes=processes,
            watched=watched_groups(start.space),
        )
        history = loop.run()
    if not processes.first:
        return
    facts = _choice(start.space, optimizer) | {
        "history": [event.to_dict() for event in history],
        "seconds": history[-1].seconds,
        "timing": asdict(loop.timing),
    }
    write_atomically(run.training, (json.dumps(facts, indent=1) + "\n").encode())
    save_model(module.to_onnx(), run.trained)


def _optimizer(module: OnnxModule, goal: Objective, start: _Start, processes: Processes) -> H2SPG:
    config = start.config

    def agree(redundancy: NDArray[np.float64]) -> NDArray[np.float64]:
        values = torch.from_numpy(redundancy.copy()).to(module.flat.device)
        processes.as_first(values)
        return values.cpu().numpy()

    return H2SPG(
        module,
        start.space,
        target=config.target,
        total_steps=steps_of(start.dataset, config.batch_size, config.epochs),
        variant=config.variant,
        lr=config.lr,
        momentum=config.momentum if config.variant == "sgd" else 0.0,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        method=config.method,
        score=config.score,
        channel_score=config.channel_score,
        round_to=config.round_to,
        min_channels=config.min_channels,
        select_at=config.select_at,
        zero_at=config.zero_at,
        epsilon=config.epsilon,
        evaluate=loss_probe(
            module,
            start.dataset.train,
            goal,
            config.seed,
            processes,
            training_batch=config.batch_size,
            samples=samples_for(len(start.space.candidates)),
        ),
        agree=agree,
        seed=config.seed,
    )


def rebuilding(space: SearchSpace, config: SearchConfig) -> Rebuild:
    """What gives the loop the compact network, as a module with the same options."""

    def rebuild(module: OnnxModule, selection: Selection) -> Narrowed | None:
        count = len(space.candidates)
        channels = None
        if space.mode != "erase":
            channels = np.zeros(space.channels.count, bool)
            channels[[index - count for index in selection.chosen if index >= count]] = True
        structures = [index for index in selection.chosen if index < count]
        try:
            graph = TraceGraph.of(module.to_onnx())
            found = cut(space.bind(graph), graph, structures, channels, fold=False)
            compact = TraceGraph.of(found.model)
            names = [name for name, _ in module.named_parameters() if name in compact.initializers]
            told = replace(config, freeze=(), train=tuple(map(escape, names)))
            return Narrowed(module, module_for(compact, told), found.kept)
        except AsgnasError as error:  # the run can end without
            logger.warning("the last phase trains the whole network, since the compact one does not: %s", error)
            return None

    return rebuild


def _choice(space: SearchSpace, optimizer: H2SPG) -> dict[str, Any]:
    """What training chose: structures one by one, channels by layer."""
    selection, redundancy = optimizer.selection, optimizer.redundancy
    assert selection is not None and redundancy is not None
    structures = len(space.candidates)
    return {
        "chosen": [
            {"tensor": space.candidates[i].tensor, "redundancy": float(redundancy[i])}
            for i in selection.chosen
            if i < structures
        ],
        "redundancy": {c.tensor: float(r) for c, r in zip(space.candidates, redundancy[:structures], strict=True)},
        "channels": {} if space.mode == "erase" else chosen_by_layer(space, selection.chosen),
        "removed": selection.removed,
        "exact": selection.exact,
    }


def _verify(run: RunDirectory, space: SearchSpace, dataset: Dataset) -> Verification:
    """Full against compact, on random inputs and on real ones."""
    split = dataset.test or dataset.train
    inputs, _ = next(iter(split.batches(32)))
    trained, source = TraceGraph.of(run.trained), TraceGraph.of(run.source)
    facts = json.loads(run.training.read_text(encoding="utf-8"))
    before = restored(space, trained, source, {entry["tensor"] for entry in facts["chosen"]})
    return verify(trained.model, run.compact, inputs={k: v.numpy() for k, v in inputs.items()}, original=before)


def _report(
    run: RunDirectory, config: SearchConfig, space: SearchSpace, verification: Verification, comparison: Benchmark
) -> RunReport:
    facts = json.loads(run.training.read_text(encoding="utf-8"))
    compact = load_model(run.compact)
    graphs = [TraceGraph.of(run.trained), TraceGraph.of(compact)]
    return RunReport(
        config=config,
        space=space,
        chosen={entry["tensor"]: entry["redundancy"] for entry in facts["chosen"]},
        redundancy=facts["redundancy"],
        channels=channel_fates(space, compact),
        history=facts["history"],
        comparison=comparison,
        verification=verification,
        seconds=facts["seconds"],
        stages=facts["timing"],
        versions=versions(),
        events=read_events(run.events),
        left=frozenset(name for node in compact.graph.node for name in node.output),
        operator_times=operator_times(graphs, threads=config.threads),
    )
