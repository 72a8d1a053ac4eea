"""What a search and a plain training share: the run directory, and from a configuration to module, loss and loop."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import torch

from onnx_asgnas.config import TrainConfig
from onnx_asgnas.errors import InputError, OutputError, RunDirectoryError
from onnx_asgnas.graph import ModelSource, TraceGraph, load_model, save_model, write_atomically
from onnx_asgnas.graph.packages import RUNTIMES
from onnx_asgnas.specs import parse_spec
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import Dataset, model_inputs, open_data
from onnx_asgnas.training.distributed import ALONE, Processes
from onnx_asgnas.training.events import Event
from onnx_asgnas.training.loop import Loop, Rebuild
from onnx_asgnas.training.losses import Objective, distilled, lesson, objective
from onnx_asgnas.training.metrics import Judge
from onnx_asgnas.training.schedules import LearningRate, learning_rate

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]

ITSELF = "self"
"""The teacher that is the network as it came."""


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
        """The trained model; of a search the full one, with the redundant groups at exactly zero."""
        return self.path / "trained.onnx"

    @property
    def compact(self) -> Path:
        """The compact model."""
        return self.path / "compact.onnx"

    @property
    def report(self) -> Path:
        """The figures of the whole run."""
        return self.path / "report.json"

    def must_be_empty(self, command: str = "search") -> None:
        """Raise RunDirectoryError where a new run would write over something."""
        if self.path.is_file():
            raise RunDirectoryError(f"{self.path} is a file", fix="Give a folder for the run.", path=str(self.path))
        if self.path.is_dir() and any(self.path.iterdir()):
            raise RunDirectoryError(
                f"{self.path} is not empty",
                fix=f"Give another folder, or go on with what is there: onnx-asgnas {command} {self.path} --resume.",
                path=str(self.path),
            )

    def must_hold(self, *files: Path, start: str) -> None:
        """Raise RunDirectoryError where a file of a run is missing; `start` is the command that starts one."""
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise RunDirectoryError(
                f"{self.path} is not a run directory: {', '.join(missing)} is missing",
                fix=f"Start a run: {start}.",
                path=str(self.path),
            )

    def create(self, config: TrainConfig, source: onnx.ModelProto, files: Mapping[Path, bytes] | None = None) -> None:
        """Write what a run starts from, its configuration last; raises RunDirectoryError and leaves nothing behind."""
        existed = self.path.exists()
        texts = {**(files or {}), self.config: config.to_json().encode()}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            save_model(source, self.source)
            for path, content in texts.items():
                write_atomically(path, content)
        except (OSError, OutputError) as error:
            for path in (self.source, *texts):
                path.unlink(missing_ok=True)
            if not existed:
                shutil.rmtree(self.path, ignore_errors=True)
            raise RunDirectoryError(
                f"{self.path} cannot be written: {error}",
                fix="Give a folder that you may write to.",
                path=str(self.path),
            ) from None


def data_for(model: ModelSource | TraceGraph, data: str, loss: str = "cross_entropy") -> Dataset:
    """The data set that a text names, checked against a model: its inputs, and the targets that the loss needs."""
    graph = model if isinstance(model, TraceGraph) else TraceGraph.of(model)
    goal = objective(loss, inputs=graph.inputs, outputs=graph.outputs)
    shapes = [_fixed(*graph.sizes(name)) for name in graph.outputs]
    return open_data(
        data,
        inputs=model_inputs(graph.model),
        classes=goal.classes(shapes),
        targets=goal.targets,
        ignored=goal.ignored,
    )


def judge_for(graph: TraceGraph, loss: str = "cross_entropy", metrics: str = "") -> Callable[[], Judge]:
    """What makes a judge for models with the inputs and outputs of this one; raises InputError."""
    goal = objective(loss, inputs=graph.inputs, outputs=graph.outputs)
    return functools.partial(Judge.of, goal, metrics)


def module_for(graph: TraceGraph, config: TrainConfig) -> OnnxModule:
    """The network as a torch module, as the configuration wants it trained."""
    return OnnxModule(
        graph,
        config.engine_options,
        freeze=config.freeze,
        train=config.train,
        freeze_bn=config.freeze_bn,
    )


def objective_for(module: OnnxModule, config: TrainConfig) -> Objective:
    """The objective of a training, with its teacher: the network as it came, or one in a file; checks metrics too."""
    goal = objective(config.loss, inputs=module.input_names, outputs=module.output_names)
    Judge.of(goal, config.metrics)
    if config.distill is None:
        return goal
    spec = parse_spec(config.distill, InputError)
    how = lesson(spec)
    graph = TraceGraph(module.source) if spec.name == ITSELF else TraceGraph.of(load_model(spec.name))
    taught = OnnxModule(graph, config.engine_options).eval()

    def teacher(inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = taught(**{name: inputs[name] for name in taught.input_names})
        return (found,) if isinstance(found, torch.Tensor) else found

    return distilled(goal, teacher, how, outputs=module.output_names, taught_outputs=taught.output_names)


def schedule_for(config: TrainConfig) -> LearningRate:
    """The schedule of the learning rate; raises InputError."""
    return learning_rate(
        config.schedule,
        warmup=config.warmup_epochs / config.epochs,
        floor=config.min_lr / config.lr if config.lr else 0.0,
    )


def loop_for(
    module: OnnxModule,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    goal: Objective,
    config: TrainConfig,
    on_event: Listener | None,
    checkpoints: Checkpoints | None = None,
    *,
    rebuild: Rebuild | None = None,
    processes: Processes = ALONE,
    watched: Sequence[int] = (),
) -> Loop:
    """The loop that a configuration describes."""
    return Loop(
        module,
        optimizer,
        dataset,
        goal,
        config.epochs,
        config.batch_size,
        schedule=schedule_for(config),
        metrics=config.metrics,
        test_every=config.test_every,
        clip_grad_norm=config.clip_grad_norm,
        seed=config.seed,
        on_event=on_event or (lambda event: None),
        checkpoints=checkpoints,
        checkpoint_every=config.checkpoint_every,
        rebuild=rebuild,
        micro_batch=config.micro_batch,
        processes=processes,
        watched=watched,
    )


def try_batch(module: OnnxModule, goal: Objective, dataset: Dataset, config: TrainConfig) -> None:
    """Run forward on a small batch in inference form, so that a loss or a metric that does not fit shows at once."""
    schedule_for(config)
    judge = Judge.of(goal, config.metrics)
    inputs, targets = next(iter(dataset.train.batches(min(config.batch_size, 2))))
    module.eval()
    with torch.no_grad():
        outputs = module(**inputs)
        goal(outputs, inputs, targets)
        judge.update(outputs, inputs, targets)


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
def threads_of_torch(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fixed(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> list[int | None] | None:
    """The sizes that are the same at both bindings of the open dimensions, None for the others."""
    if one is None or other is None:
        return None
    return [size if size == beside else None for size, beside in zip(one, other, strict=True)]
