"""The options that several commands share, declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

import typer

from onnx_asgnas import config
from onnx_asgnas.config import Target
from onnx_asgnas.errors import TargetError


def one_of(*choices: str) -> Callable[[str], str]:
    """What checks that the value of an option is one of these."""

    def check(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is none of: {', '.join(choices)}")
        return value

    return check


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads for onnxruntime and torch (default: all cores).")
]
Protect = Annotated[
    list[str],
    typer.Option(
        "--protect",
        metavar="PATTERN",
        help="Keep what matches: names of operators, tensors or weights, as 'head*', or a type, as 'op:Gemm'. "
        "May be repeated.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse models with unknown operators instead of keeping them.")]
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        callback=one_of(*get_args(config.Mode)),
        help="What may leave: whole structures (erase), channels inside of layers (prune), or both (joint).",
    ),
]
RoundTo = Annotated[
    int, typer.Option("--round-to", metavar="N", min=1, help="Layers keep a multiple of N channels, as 8.")
]
MinChannels = Annotated[
    int, typer.Option("--min-channels", metavar="N", min=1, help="Layers keep at least N channels.")
]

_TARGET = "Target (exactly one)"
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


def _number(text: str, name: str) -> float | int:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=f"--{name.replace('_', '-')}") from None
