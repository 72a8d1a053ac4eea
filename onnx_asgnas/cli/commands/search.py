"""`search`: one training run from a supernet to a verified compact model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import (
    Debug,
    Json,
    KeepMacs,
    KeepParams,
    MinChannels,
    Mode,
    Protect,
    RemoveGroups,
    RoundTo,
    Seed,
    Strict,
    Threads,
    Uniform,
    target,
)
from onnx_asgnas.cli.screen import complain, draw_comparison, print_json, say, training_progress
from onnx_asgnas.config import CHANNEL_SCORE, SCORE

_TRAINING = "Training"
_SEARCH = "Search"


@app.command()
def search(
    model: Annotated[Path, typer.Argument(metavar="MODEL|RUN", help="An ONNX file; with --resume a run directory.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="fashion-mnist-mini, fashion-mnist[:DIR], npz:FILE, or python:pkg.mod:callable."),
    ] = None,
    remove_groups: RemoveGroups = None,
    keep_params: KeepParams = None,
    keep_macs: KeepMacs = None,
    uniform: Uniform = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="The run directory; it must not exist or be empty."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the directory RUN.")] = False,
    epochs: Annotated[int, typer.Option(min=1, rich_help_panel=_TRAINING)] = 10,
    batch_size: Annotated[int, typer.Option(min=1, rich_help_panel=_TRAINING)] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.", rich_help_panel=_TRAINING)] = 0.05,
    variant: Annotated[str, typer.Option(help="sgd, adam or adamw.", rich_help_panel=_TRAINING)] = "sgd",
    momentum: Annotated[float, typer.Option(help="Of sgd.", rich_help_panel=_TRAINING)] = 0.9,
    nesterov: Annotated[
        bool, typer.Option("--nesterov", help="Nesterov momentum, for sgd.", rich_help_panel=_TRAINING)
    ] = False,
    weight_decay: Annotated[float, typer.Option(rich_help_panel=_TRAINING)] = 1e-4,
    schedule: Annotated[str, typer.Option(help="cosine or constant.", rich_help_panel=_TRAINING)] = "cosine",
    loss: Annotated[
        str, typer.Option(help="cross_entropy, mse, or python:pkg.mod:callable.", rich_help_panel=_TRAINING)
    ] = "cross_entropy",
    freeze: Annotated[
        list[str],
        typer.Option("--freeze", metavar="PATTERN", help="Weights that do not train.", rich_help_panel=_TRAINING),
    ] = [],  # noqa: B006
    train: Annotated[
        list[str],
        typer.Option("--train", metavar="PATTERN", help="Float constants that train too.", rich_help_panel=_TRAINING),
    ] = [],  # noqa: B006
    freeze_bn: Annotated[
        bool,
        typer.Option("--freeze-bn", help="Leave batch normalisation in inference form.", rich_help_panel=_TRAINING),
    ] = False,
    engine: Annotated[str, typer.Option(help="auto or ort.", rich_help_panel=_TRAINING)] = "auto",
    score: Annotated[
        str,
        typer.Option(
            help="How redundant a structure is: measured, paper, hesso, magnitude, mean-magnitude, cosine, taylor1, "
            "taylor2, random, or a mix as 'magnitude:1,cosine:1'.",
            rich_help_panel=_SEARCH,
        ),
    ] = SCORE,
    channel_score: Annotated[
        str,
        typer.Option(help="How redundant a channel is: the same, but measured.", rich_help_panel=_SEARCH),
    ] = CHANNEL_SCORE,
    method: Annotated[
        str, typer.Option(help="h2spg, hesso, or dhspg (which does not check validity).", rich_help_panel=_SEARCH)
    ] = "h2spg",
    select_at: Annotated[
        float,
        typer.Option(help="Fraction of the steps after which the groups are chosen.", rich_help_panel=_SEARCH),
    ] = 0.1,
    zero_at: Annotated[
        float, typer.Option(help="Fraction of the steps after which they are at zero.", rich_help_panel=_SEARCH)
    ] = 0.15,
    epsilon: Annotated[
        float, typer.Option(help="Of the half-space projection: 0 projects late, 0.99 early.", rich_help_panel=_SEARCH)
    ] = 0.0,
    mode: Mode = "erase",
    round_to: RoundTo = 1,
    min_channels: MinChannels = 1,
    protect: Protect = [],  # noqa: B006
    strict: Strict = False,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a supernet once and get the compact model: trained, constructed, verified, measured.

        onnx-asgnas search unets.onnx --data fashion-mnist-mini --remove-groups 0.5 -o runs/a

        onnx-asgnas search unets.onnx --data fashion-mnist-mini --mode joint --keep-macs 0.4 --round-to 4 -o runs/b

        onnx-asgnas search runs/a --resume

    The run directory holds the compact model (compact.onnx), the trained full one, the report and the checkpoints.
    Ctrl-C leaves it so that --resume goes on.
    """
    from onnx_asgnas import pipeline

    if resume:
        run_dir = model
    elif output is None or data is None:
        missing = "--output" if output is None else "--data"
        raise typer.BadParameter(
            "it is needed to start a run (with --resume give only the run directory)", param_hint=missing
        )
    else:
        run_dir = output
    try:
        with training_progress() as show:
            if resume:
                result = pipeline.resume(run_dir, on_event=show)
            else:
                result = pipeline.search(
                    model,
                    str(data),
                    target(remove_groups=remove_groups, keep_params=keep_params, keep_macs=keep_macs, uniform=uniform),
                    run_dir=run_dir,
                    on_event=show,
                    mode=mode,
                    round_to=round_to,
                    min_channels=min_channels,
                    loss=loss,
                    epochs=epochs,
                    batch_size=batch_size,
                    variant=variant,
                    lr=lr,
                    momentum=momentum,
                    nesterov=nesterov,
                    weight_decay=weight_decay,
                    schedule=schedule,
                    method=method,
                    score=score,
                    channel_score=channel_score,
                    select_at=select_at,
                    zero_at=zero_at,
                    epsilon=epsilon,
                    engine=engine,
                    protect=tuple(protect),
                    freeze=tuple(freeze),
                    train=tuple(train),
                    freeze_bn=freeze_bn,
                    strict=strict,
                    seed=seed,
                    threads=threads,
                )
    except KeyboardInterrupt:
        if run_dir.is_dir():
            complain(f"interrupted; go on with: onnx-asgnas search {run_dir} --resume")
        raise
    facts = result.report.to_dict()
    if as_json:
        print_json(facts)
        return
    draw_comparison(facts)
    say(f"\ncompact model: {run_dir / 'compact.onnx'}\nreport:        {run_dir / 'report.md'}")
