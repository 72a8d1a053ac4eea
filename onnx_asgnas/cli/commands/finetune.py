"""`finetune`: train a model as it is, a compact one say, with the engines and the loop of a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_asgnas.cli import options as o
from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.screen import complain, draw_table, print_json, say, training_progress
from onnx_asgnas.config import TrainConfig

if TYPE_CHECKING:
    from onnx_asgnas.finetuning import FineTuned

_EXAMPLES = """Examples:

- What `prune` gave, for a few epochs:
  `onnx-asgnas finetune compact.onnx --data npz:images.npz --pretrained --epochs 5 -o runs/tuned`

- The same, and taught by the full model:
  `onnx-asgnas finetune compact.onnx --data npz:images.npz --pretrained --distill full.onnx -o runs/taught`

- Go on with a run that was stopped:
  `onnx-asgnas finetune runs/tuned --resume`
"""


@app.command(epilog=_EXAMPLES)
def finetune(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL|RUN", help="An ONNX file; with --resume a run directory.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="The run directory; it must not exist or be empty."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the directory RUN.")] = False,
    seed: o.Seed = 0,
    as_json: o.Json = False,
    debug: o.Debug = False,
    data: o.Data = None,
    loss: o.Loss = "cross_entropy",
    metrics: o.Metrics = "",
    distill: o.Distill = None,
    pretrained: o.Pretrained = False,
    epochs: o.Epochs = 10,
    batch_size: o.BatchSize = 32,
    variant: o.Variant = "sgd",
    lr: o.LearningRate = None,
    schedule: o.Schedule = "cosine",
    warmup_epochs: o.WarmupEpochs = 0.0,
    min_lr: o.MinLr = 0.0,
    momentum: o.Momentum = 0.9,
    nesterov: o.Nesterov = False,
    weight_decay: o.WeightDecay = 1e-4,
    clip_grad_norm: o.ClipGradNorm = None,
    micro_batch: o.MicroBatch = None,
    test_every: o.TestEvery = 1,
    checkpoint_every: o.CheckpointEvery = 60.0,
    freeze: o.Freeze = [],  # noqa: B006
    train: o.Train = [],  # noqa: B006
    freeze_bn: o.FreezeBn = False,
    engine: o.Engine = "auto",
    device: o.Device = "cpu",
    channels_last: o.ChannelsLast = False,
    autocast: o.Autocast = None,
    compile: o.Compile = False,
    threads: o.EngineThreads = None,
) -> None:
    """Train a model as it is: nothing is removed.

    The run directory holds the trained model (trained.onnx), report.json and the checkpoints. Ctrl-C leaves it so that
    --resume goes on.
    """
    from onnx_asgnas import finetuning

    run_dir = o.run_directory(model, output, data, resume=resume)
    try:
        with training_progress() as show:
            if resume:
                result = finetuning.resume_finetune(run_dir, on_event=show)
            else:
                told = o.given(context, TrainConfig)
                result = finetuning.finetune(model, str(data), run_dir=run_dir, on_event=show, **told)
    except KeyboardInterrupt:
        if run_dir.is_dir():
            complain(f"interrupted; go on with: onnx-asgnas finetune {run_dir} --resume")
        raise
    if as_json:
        print_json(result.to_dict())
        return
    _draw(result)
    say(f"\ntrained model: {run_dir / 'trained.onnx'}")


def _draw(result: FineTuned) -> None:
    """The figures on the test data before and after."""
    from onnx_asgnas.report.numbers import metric

    if result.before is None or result.after is None:
        return
    rows = [("loss", f"{result.before.loss:.4f}", f"{result.after.loss:.4f}")]
    rows += [
        (name, metric(name, result.before.metrics.get(name)), metric(name, value))
        for name, value in result.after.metrics.items()
    ]
    say()
    draw_table("", ("on the test data", "before", "after"), rows)
