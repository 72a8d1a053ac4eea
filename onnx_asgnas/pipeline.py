"""The stages one after another over a run directory: analyze → train → construct → verify → benchmark → report.

Each stage reads files of the run directory and writes one, so a run that stopped goes on at the stage that it was in.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from glob import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnx
import torch

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.errors import OutputError, RunDirectoryError, SpaceError
from onnx_asgnas.evaluation import Benchmark, Verification, benchmark, verify
from onnx_asgnas.graph import ModelSource, TraceGraph, load_model, save_model, write_atomically
from onnx_asgnas.graph.packages import RUNTIMES
from onnx_asgnas.report import RunReport, channel_fates, chosen_by_layer, write_report
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.surgery import construct
from onnx_asgnas.surgery.restoring import restored
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import Dataset, model_inputs, open_data
from onnx_asgnas.training.h2spg import H2SPG
from onnx_asgnas.training.loop import Event, Loop, loss_probe, steps_of
from onnx_asgnas.training.losses import Objective, objective
from onnx_asgnas.training.schedules import learning_rate

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]

_NO_TARGET = Target(remove_groups=1)
"""Where nothing is removed, the target is never looked at."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """What the run was told."""
        return self.path / "config.json"

    @property
    def source(self) -> Path:
        """The model as it came."""
        return self.path / "source.onnx"

    @property
    def space(self) -> Path:
        """Its search space."""
        return self.path / "space.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of training states."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """What happened in training, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def training(self) -> Path:
        """What training chose and how it went."""
        return self.path / "training.json"

    @property
    def trained(self) -> Path:
        """The full model, with the redundant groups at exactly zero."""
        return self.path / "trained.onnx"

    @property
    def compact(self) -> Path:
        """The compact model."""
        return self.path / "compact.onnx"


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
    config = SearchConfig(data=data, target=target, **options)
    run = RunDirectory(Path(run_dir))
    _must_be_empty(run.path)
    source = load_model(model)
    graph = TraceGraph.of(source)
    module = _module(graph, config)
    space = _space(graph, module, config)
    dataset = data_for(source, config.data, config.loss)
    _check_before_training(module, space, dataset, config)
    _create(run, config, source, space)
    return _run_stages(run, config, space, dataset, on_event)


def resume(run_dir: str | Path, *, on_event: Listener | None = None) -> SearchResult:
    """Go on with a run that stopped, from its last checkpoint or at the stage that it was in."""
    run = RunDirectory(Path(run_dir))
    missing = [path.name for path in (run.config, run.source, run.space) if not path.is_file()]
    if missing:
        raise RunDirectoryError(
            f"{run.path} is not a run directory: {', '.join(missing)} is missing",
            fix="Start a run: onnx-asgnas search MODEL --data DATA TARGET -o RUN.",
            path=str(run.path),
        )
    config = SearchConfig.read(run.config)
    space = SearchSpace.read(run.space, run.source)
    return _run_stages(run, config, space, data_for(run.source, config.data, config.loss), on_event)


def _run_stages(
    run: RunDirectory, config: SearchConfig, space: SearchSpace, dataset: Dataset, on_event: Listener | None
) -> SearchResult:
    with _threads(config.threads):
        if not run.trained.exists():
            _train(run, config, space, dataset, on_event)
        if not run.compact.exists():
            save_model(construct(run.trained, space), run.compact)
        verification = _verify(run, space, dataset)
        verification.require()
        comparison = benchmark(
            run.trained, run.compact, split=dataset.test, verification=verification, threads=config.threads
        )
    report = _report(run, config, space, verification, comparison)
    write_report(run.path, report)
    return SearchResult(run_dir=run.path, compact=load_model(run.compact), report=report)


def train_plainly(
    model: ModelSource,
    data: str,
    *,
    run_dir: str | Path | None = None,
    on_event: Listener | None = None,
    **options: Any,
) -> tuple[onnx.ModelProto, list[Event]]:
    """Train a model as it is, with the same loop and engine: a baseline. Gives it, and the event of each epoch.

    The options are those of SearchConfig. With a `run_dir` its checkpoints lie there, and a second call goes on.
    """
    config = SearchConfig(data=data, target=_NO_TARGET, **options)
    source = load_model(model)
    checkpoints = None if run_dir is None else Checkpoints(RunDirectory(Path(run_dir)).checkpoints)
    with _threads(config.threads):
        module = _module(TraceGraph.of(source), config)
        optimizer = torch.optim.SGD(
            [p for p in module.parameters() if p.requires_grad],
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        dataset = data_for(source, config.data, config.loss)
        history = _loop(module, optimizer, dataset, config, on_event, checkpoints).run()
    return module.to_onnx(), history


def _must_be_empty(path: Path) -> None:
    if path.is_file():
        raise RunDirectoryError(f"{path} is a file", fix="Give a folder for the run.", path=str(path))
    if path.is_dir() and any(path.iterdir()):
        raise RunDirectoryError(
            f"{path} is not empty",
            fix=f"Give another folder, or go on with what is there: onnx-asgnas search {path} --resume.",
            path=str(path),
        )


def _create(run: RunDirectory, config: SearchConfig, source: onnx.ModelProto, space: SearchSpace) -> None:
    existed = run.path.exists()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        save_model(source, run.source)
        write_atomically(run.space, space.to_json().encode())
        write_atomically(run.config, config.to_json().encode())
    except (OSError, OutputError) as error:
        for path in (run.source, run.space, run.config):
            path.unlink(missing_ok=True)
        if not existed:
            shutil.rmtree(run.path, ignore_errors=True)
        raise RunDirectoryError(
            f"{run.path} cannot be written: {error}", fix="Give a folder that you may write to.", path=str(run.path)
        ) from None


def data_for(model: ModelSource, data: str, loss: str = "cross_entropy") -> Dataset:
    """The data set that a text names, checked against a model: its inputs, and the targets that the loss needs."""
    graph = TraceGraph.of(model)
    goal = objective(loss, inputs=graph.inputs, outputs=graph.outputs)
    shapes = [_fixed(*graph.sizes(name)) for name in graph.outputs]
    return open_data(
        data,
        inputs=model_inputs(graph.model),
        classes=goal.classes(shapes),
        targets=goal.targets,
        ignored=goal.ignored,
    )


def _fixed(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> list[int | None] | None:
    """The sizes that are the same at both bindings of the open dimensions, None for the others."""
    if one is None or other is None:
        return None
    return [size if size == beside else None for size, beside in zip(one, other, strict=True)]


def _objective(module: OnnxModule, config: SearchConfig) -> Objective:
    return objective(config.loss, inputs=module.input_names, outputs=module.output_names)


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


def _check_before_training(module: OnnxModule, space: SearchSpace, dataset: Dataset, config: SearchConfig) -> None:
    """What would otherwise fail only later: no group that may leave, a target too high, a batch refused."""
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
    loss = _objective(module, config)
    inputs, target = next(iter(dataset.train.batches(min(config.batch_size, 2))))
    module.eval()
    with torch.no_grad():
        loss(module(**inputs), inputs, target)


def _module(graph: TraceGraph, config: SearchConfig) -> OnnxModule:
    return OnnxModule(
        graph,
        config.engine,
        freeze=config.freeze,
        train=config.train,
        freeze_bn=config.freeze_bn,
        threads=config.threads,
    )


def _loop(
    module: OnnxModule,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    config: SearchConfig,
    on_event: Listener | None,
    checkpoints: Checkpoints | None = None,
) -> Loop:
    return Loop(
        module,
        optimizer,
        dataset,
        _objective(module, config),
        config.epochs,
        config.batch_size,
        schedule=learning_rate(config.schedule),
        seed=config.seed,
        on_event=on_event or (lambda event: None),
        checkpoints=checkpoints,
    )


def _train(
    run: RunDirectory, config: SearchConfig, space: SearchSpace, dataset: Dataset, on_event: Listener | None
) -> None:
    torch.manual_seed(config.seed)
    assert space.graph is not None
    module = _module(space.graph, config)
    optimizer = H2SPG(
        module,
        space,
        target=config.target,
        total_steps=steps_of(dataset, config.batch_size, config.epochs),
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
        evaluate=loss_probe(module, dataset.train, _objective(module, config), config.seed),
        seed=config.seed,
    )
    with run.events.open("a", encoding="utf-8") as file:
        loop = _loop(module, optimizer, dataset, config, _tee(on_event, file), Checkpoints(run.checkpoints))
        history = loop.run()
    facts = _choice(space, optimizer) | {
        "history": [event.to_dict() for event in history],
        "seconds": history[-1].seconds,
        "timing": asdict(loop.timing),
    }
    write_atomically(run.training, (json.dumps(facts, indent=1) + "\n").encode())
    save_model(module.to_onnx(), run.trained)


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


def _tee(on_event: Listener | None, file: TextIO) -> Listener:
    def listen(event: Event) -> None:
        if event.kind != "step":
            file.write(json.dumps({"time": round(time.time(), 3), **event.to_dict()}) + "\n")
            file.flush()
        if on_event is not None:
            on_event(event)

    return listen


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
    return RunReport(
        config=config,
        space=space,
        chosen={entry["tensor"]: entry["redundancy"] for entry in facts["chosen"]},
        redundancy=facts["redundancy"],
        channels=channel_fates(space, load_model(run.compact)),
        history=facts["history"],
        comparison=comparison,
        verification=verification,
        seconds=facts["seconds"],
        stages=facts["timing"],
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """The versions of this package and of those that its numbers depend on; what is not installed is left out."""
    found = {}
    for name in ("onnx-asgnas", "onnx", *RUNTIMES, "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def _threads(threads: int | None) -> Any:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
