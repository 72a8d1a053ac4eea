"""The options that several commands share, declared once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from onnx_asgnas import config
from onnx_asgnas.config import LEARNING_RATES, Target, TrainConfig
from onnx_asgnas.errors import TargetError


def one_of(*choices: str) -> Callable[[str], str]:
    """What checks that the value of an option is one of these."""

    def check(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is none of: {', '.join(choices)}")
        return value

    return check


def given(context: typer.Context, kind: type[TrainConfig]) -> dict[str, Any]:
    """The options of a configuration that the user gave, so that what was not given may take another default."""
    known = {field.name for field in dataclasses.fields(kind)} - {"data", "target"}
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name in known and source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP"):
            found[name] = tuple(value) if isinstance(value, list) else value
    return found


_TARGET = "Target (exactly one)"
_TASK = "Task"
_TRAINING = "Training"
_ENGINE = "Engine"
_METHOD = "Method"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
_THREADS = "Threads for onnxruntime and torch (default: all cores)."
Threads = Annotated[int | None, typer.Option("--threads", min=1, help=_THREADS)]
Protect = Annotated[
    list[str],
    typer.Option(
        "--protect",
        metavar="PATTERN",
        rich_help_panel=_METHOD,
        help="Keep what matches: names of operators, tensors or weights, as 'head*', or a type, as 'op:Gemm'. "
        "May be repeated.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", rich_help_panel=_METHOD, help="Refuse models with unknown operators instead of keeping them."
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="NAME",
        rich_help_panel=_METHOD,
        callback=one_of(*get_args(config.Mode)),
        help="What may leave: whole structures (erase), channels inside of layers (prune), or both (joint).",
    ),
]
Gates = Annotated[
    bool,
    typer.Option(
        "--gates",
        rich_help_panel=_METHOD,
        help="Let skip connections and poolings be erased too, by a trainable factor on each (modes erase and joint).",
    ),
]
RoundTo = Annotated[
    int,
    typer.Option(
        "--round-to", metavar="N", min=1, rich_help_panel=_METHOD, help="Layers keep a multiple of N channels, as 8."
    ),
]
MinChannels = Annotated[
    int,
    typer.Option(
        "--min-channels", metavar="N", min=1, rich_help_panel=_METHOD, help="Layers keep at least N channels."
    ),
]

RemoveGroups = Annotated[
    str | None,
    typer.Option(
        "--remove-groups",
        metavar="K|F",
        help="How many to remove (4), or what fraction (0.5): minimal structures, in mode prune channel groups.",
        rich_help_panel=_TARGET,
    ),
]
KeepParams = Annotated[
    str | None,
    typer.Option(
        "--keep-params", metavar="F", help="Fraction of the parameters that may stay.", rich_help_panel=_TARGET
    ),
]
KeepMacs = Annotated[
    str | None,
    typer.Option(
        "--keep-macs", metavar="F", help="Fraction of the multiply-accumulates that may stay.", rich_help_panel=_TARGET
    ),
]
Uniform = Annotated[
    str | None,
    typer.Option(
        "--uniform", metavar="F", help="Fraction of the channels that leaves every layer.", rich_help_panel=_TARGET
    ),
]


Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        rich_help_panel=_TASK,
        help="fashion-mnist-mini, fashion-mnist[:DIR], npz:FILE, python:pkg.mod:callable, …",
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--loss",
        metavar="LOSS",
        rich_help_panel=_TASK,
        help="cross_entropy, pixel_cross_entropy, next_token, mse, l1, bce_with_logits, or python:pkg.mod:callable; "
        "with arguments: 'cross_entropy?label_smoothing=0.1'; on outputs, with weights: "
        "'logits=cross_entropy:1,aux=cross_entropy:0.4'.",
    ),
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="NAMES",
        rich_help_panel=_TASK,
        show_default="what fits the loss",
        help="top1, top5, miou, pixel_accuracy, perplexity, mse, mae, binary_accuracy; several with commas.",
    ),
]
TestEvery = Annotated[
    int,
    typer.Option(
        "--test-every",
        metavar="EPOCHS",
        min=1,
        rich_help_panel=_TRAINING,
        help="How often the test data are evaluated, besides after the last epoch.",
    ),
]
TaskLoss = Annotated[
    str, typer.Option("--loss", metavar="LOSS", help="Says what the targets of the data are, as in search.")
]
TaskMetrics = Annotated[
    str,
    typer.Option(
        "--metrics", metavar="NAMES", show_default="what fits the loss", help="As top1,top5; see search --help."
    ),
]
Distill = Annotated[
    str | None,
    typer.Option(
        "--distill",
        metavar="TEACHER",
        rich_help_panel=_TASK,
        help="Learn from a teacher too: 'self' (the network as it came) or an ONNX file, with arguments: "
        "'self?weight=0.5&temperature=4'.",
    ),
]
Pretrained = Annotated[
    bool,
    typer.Option(
        "--pretrained",
        rich_help_panel=_TASK,
        help="The weights are trained already: a third of the learning rate, unless you give one.",
    ),
]
Epochs = Annotated[
    int,
    typer.Option("--epochs", metavar="N", min=1, help="How often the data is gone through.", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", metavar="N", min=1, help="Samples a step.", rich_help_panel=_TRAINING)
]
Variant = Annotated[
    str, typer.Option("--variant", metavar="NAME", help="The optimiser: sgd, adam or adamw.", rich_help_panel=_TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="X",
        rich_help_panel=_TRAINING,
        show_default=", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items()),
        help="The highest learning rate.",
    ),
]
Momentum = Annotated[float, typer.Option("--momentum", metavar="X", help="Of sgd.", rich_help_panel=_TRAINING)]
Nesterov = Annotated[bool, typer.Option("--nesterov", help="Nesterov momentum, for sgd.", rich_help_panel=_TRAINING)]
WeightDecay = Annotated[
    float, typer.Option("--weight-decay", metavar="X", help="Decay of the weights.", rich_help_panel=_TRAINING)
]
Schedule = Annotated[
    str,
    typer.Option(
        "--schedule",
        metavar="NAME",
        rich_help_panel=_TRAINING,
        help="How the learning rate goes: cosine, 'cosine?hold=0.15' (it falls after that part of the run only; a "
        "search takes it from --zero-at), constant, or 'step?gamma=0.1' (falls at 0.5 and 0.75).",
    ),
]
WarmupEpochs = Annotated[
    float,
    typer.Option(
        "--warmup-epochs", metavar="N", help="Epochs, or a part of one, in which it rises.", rich_help_panel=_TRAINING
    ),
]
MinLr = Annotated[
    float, typer.Option("--min-lr", metavar="X", help="It never falls below this.", rich_help_panel=_TRAINING)
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch",
        metavar="N",
        min=1,
        rich_help_panel=_TRAINING,
        show_default="the whole batch",
        help="Samples computed at a time, where a batch needs too much memory.",
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        "--checkpoint-every",
        metavar="SECONDS",
        min=0,
        rich_help_panel=_TRAINING,
        help="How often the state is saved, besides after each epoch.",
    ),
]
ClipGradNorm = Annotated[
    float | None,
    typer.Option("--clip-grad-norm", metavar="X", help="Shorten longer gradients to this.", rich_help_panel=_TRAINING),
]
Freeze = Annotated[
    list[str],
    typer.Option(
        "--freeze", metavar="PATTERN", help="Weights that do not train; may be repeated.", rich_help_panel=_TRAINING
    ),
]
Train = Annotated[
    list[str],
    typer.Option("--train", metavar="PATTERN", help="Float constants that train too.", rich_help_panel=_TRAINING),
]
FreezeBn = Annotated[
    bool,
    typer.Option(
        "--freeze-bn/--no-freeze-bn",
        help="Leave batch normalisation in inference form.",
        rich_help_panel=_TRAINING,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        rich_help_panel=_ENGINE,
        help="ort (onnxruntime-training), torch, or auto: the first where it is installed, else the second.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:0, mps.", rich_help_panel=_ENGINE)
]
ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", help="Images with channels last (torch).", rich_help_panel=_ENGINE)
]
Autocast = Annotated[
    str | None, typer.Option("--autocast", metavar="TYPE", help="bf16 (torch).", rich_help_panel=_ENGINE)
]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile (torch).", rich_help_panel=_ENGINE)]
EngineThreads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help=_THREADS, rich_help_panel=_ENGINE)
]
Score = Annotated[
    str,
    typer.Option(
        "--score",
        metavar="NAME",
        rich_help_panel=_METHOD,
        help="How redundant a structure is: measured, paper, hesso, magnitude, mean-magnitude, cosine, taylor1, "
        "taylor2, random, or a mix as 'magnitude:1,cosine:1'.",
    ),
]
ChannelScore = Annotated[
    str,
    typer.Option(
        "--channel-score",
        metavar="NAME",
        help="How redundant a channel is: the same, but measured.",
        rich_help_panel=_METHOD,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="h2spg, hesso, or dhspg (which does not check validity).",
        rich_help_panel=_METHOD,
    ),
]
SelectAt = Annotated[
    float,
    typer.Option(
        "--select-at", metavar="F", help="Part of the steps before groups are chosen.", rich_help_panel=_METHOD
    ),
]
ZeroAt = Annotated[
    float,
    typer.Option("--zero-at", metavar="F", help="Part of the steps before they are at zero.", rich_help_panel=_METHOD),
]
Epsilon = Annotated[
    float,
    typer.Option(
        "--epsilon",
        metavar="X",
        help="Of the half-space projection: 0 projects late, 0.99 early.",
        rich_help_panel=_METHOD,
    ),
]


def targets(
    *, remove_groups: str | None, keep_params: str | None, keep_macs: str | None, uniform: str | None
) -> list[Target]:
    """The targets that were asked for: a list separated by commas of one kind; raises TargetError for several kinds."""
    given = {
        "remove_groups": remove_groups,
        "keep_params": keep_params,
        "keep_macs": keep_macs,
        "uniform": uniform,
    }
    given = {name: text for name, text in given.items() if text is not None}
    if len(given) != 1:
        options = [f"--{name.replace('_', '-')}" for name in given]
        raise TargetError(
            f"a target is exactly one of --remove-groups, --keep-params, --keep-macs and --uniform; "
            f"got {' and '.join(options) or 'none'}",
            fix="Give one of them, as --keep-macs 0.5.",
        )
    ((name, texts),) = given.items()
    assert texts is not None
    return [Target(**{name: _number(text.strip(), name)}) for text in texts.split(",")]


def target(**given: str | None) -> Target:
    """The one target that was asked for; raises TargetError for a list."""
    found = targets(**given)
    if len(found) > 1:
        raise TargetError(
            f"a search has one target, not {len(found)}",
            fix="Start a run for each, or use `onnx-asgnas prune`, which takes a list.",
        )
    return found[0]


def run_directory(model: Path, output: Path | None, data: str | None, *, resume: bool) -> Path:
    """Where a run lies: the argument where it goes on, else --output, which a start needs as it needs --data."""
    if resume:
        return model
    if output is None or data is None:
        raise typer.BadParameter(
            "it is needed to start a run (with --resume give only the run directory)",
            param_hint="--output" if output is None else "--data",
        )
    return output


def _number(text: str, name: str) -> float | int:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=f"--{name.replace('_', '-')}") from None
