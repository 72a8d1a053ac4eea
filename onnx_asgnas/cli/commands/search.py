"""`search`: one training run from a supernet to a verified compact model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_asgnas.cli import options as o
from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.screen import complain, draw_comparison, print_json, say, training_progress
from onnx_asgnas.config import CHANNEL_SCORE, SCORE, SELECT_AT, ZERO_AT, SearchConfig

_EXAMPLES = """Examples:

- Half of the structures of a supernet, on images that come with the package:
  `onnx-asgnas search unets.onnx --data fashion-mnist-mini --remove-groups 0.5 -o runs/a`

- Structures and channels together, widths in multiples of 8:
  `onnx-asgnas search unets.onnx --data fashion-mnist-mini --mode joint --keep-macs 0.4 --round-to 8 -o runs/b`

- A trained network, which also teaches the smaller one:
  `onnx-asgnas search resnet.onnx --data npz:images.npz --mode prune --keep-macs 0.5 --pretrained
  --distill self -o runs/c`

- A language model, ids and mask from arrays named as its inputs:
  `onnx-asgnas search gpt.onnx --data npz:tokens.npz --loss next_token --variant adamw --mode prune
  --keep-params 0.6 -o runs/d`

- Go on with a run that was stopped:
  `onnx-asgnas search runs/a --resume`
"""


@app.command(epilog=_EXAMPLES)
def search(
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
    remove_groups: o.RemoveGroups = None,
    keep_params: o.KeepParams = None,
    keep_macs: o.KeepMacs = None,
    uniform: o.Uniform = None,
    data: o.Data = None,
    loss: o.Loss = "cross_entropy",
    metrics: o.Metrics = "",
    distill: o.Distill = None,
    pretrained: o.Pretrained = False,
    epochs: o.Epochs = 10,
    batch_size: o.BatchSize = 32,
    variant: o.Variant = "sgd",
    lr: o.LearningRate = None,
    schedule: o.Schedule = f"cosine?hold={ZERO_AT}",
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
    mode: o.Mode = "erase",
    gates: o.Gates = False,
    round_to: o.RoundTo = 1,
    min_channels: o.MinChannels = 1,
    protect: o.Protect = [],  # noqa: B006
    strict: o.Strict = False,
    method: o.Method = "h2spg",
    score: o.Score = SCORE,
    channel_score: o.ChannelScore = CHANNEL_SCORE,
    select_at: o.SelectAt = SELECT_AT,
    zero_at: o.ZeroAt = ZERO_AT,
    epsilon: o.Epsilon = 0.0,
) -> None:
    """Train a supernet once and get the compact model: trained, constructed, verified, measured.

    The run directory holds the compact model (compact.onnx), the trained full one, the report and the checkpoints.
    Ctrl-C leaves it so that --resume goes on.
    """
    from onnx_asgnas import pipeline
    from onnx_asgnas.training.distributed import started_processes

    run_dir = o.run_directory(model, output, data, resume=resume)
    first = started_processes().first
    try:
        if resume and not first:
            pipeline.assist_resume(run_dir)
            return
        if resume:
            with training_progress() as show:
                result = pipeline.resume(run_dir, on_event=show)
        else:
            goal = o.target(remove_groups=remove_groups, keep_params=keep_params, keep_macs=keep_macs, uniform=uniform)
            told = o.given(context, SearchConfig)
            if not first:
                pipeline.assist(model, str(data), goal, run_dir=run_dir, **told)
                return
            with training_progress() as show:
                result = pipeline.search(model, str(data), goal, run_dir=run_dir, on_event=show, **told)
    except KeyboardInterrupt:
        if run_dir.is_dir() and first:
            complain(f"interrupted; go on with: onnx-asgnas search {run_dir} --resume")
        raise
    facts = result.report.to_dict()
    if as_json:
        print_json(facts)
        return
    draw_comparison(facts)
    say(f"\ncompact model: {run_dir / 'compact.onnx'}\nreport:        {run_dir / 'report.html'}")
