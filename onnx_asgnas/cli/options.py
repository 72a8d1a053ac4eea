"""The options that several commands share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_asgnas.config import Target

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
        help="Keep structures whose tensor or operator matches, as 'head*'. May be repeated.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse models with unknown operators instead of keeping them.")]
Mode = Annotated[
    str, typer.Option("--mode", help="What may leave: 'erase' whole structures. ('prune' and 'joint' are to come.)")
]

_TARGET = "Target"
RemoveGroups = Annotated[
    str | None,
    typer.Option(
        "--remove-groups",
        metavar="K|F",
        help="Number of minimal structures to remove (4), or their fraction (0.5).",
        rich_help_panel=_TARGET,
    ),
]
KeepParams = Annotated[
    float | None,
    typer.Option(
        "--keep-params", metavar="F", help="Fraction of the parameters that may stay.", rich_help_panel=_TARGET
    ),
]
KeepMacs = Annotated[
    float | None,
    typer.Option(
        "--keep-macs", metavar="F", help="Fraction of the multiply-accumulates that may stay.", rich_help_panel=_TARGET
    ),
]


def target(remove_groups: str | None, keep_params: float | None, keep_macs: float | None) -> Target:
    """The target that was asked for; raises TargetError unless it is exactly one."""
    number: float | int | None = None
    if remove_groups is not None:
        try:
            number = (
                float(remove_groups) if "." in remove_groups or "e" in remove_groups.lower() else int(remove_groups)
            )
        except ValueError:
            raise typer.BadParameter(f"{remove_groups!r} is not a number", param_hint="--remove-groups") from None
    return Target(remove_groups=number, keep_params=keep_params, keep_macs=keep_macs)
