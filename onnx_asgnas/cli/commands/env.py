"""`env`: environments for frameworks whose packages would disturb this one's."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json
from onnx_asgnas.cli.screen import complain, draw_table, print_json, say

env = typer.Typer(no_args_is_help=True, help="Make, list and remove environments for converters of other frameworks.")
app.add_typer(env, name="env")

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `onnx-asgnas env list` names it: jax, tensorflow, …")]


@env.command("create")
def create(name: Name, debug: Debug = False) -> None:
    """Make an environment with pip, from the list of pinned packages that belongs to this version."""
    from onnx_asgnas.converters import environments

    found = environments.create(name, complain)
    say(f"{found.folder} is ready: `onnx-asgnas convert` runs {name} there")


@env.command("list")
def list_all(as_json: Json = False, debug: Debug = False) -> None:
    """Say which environments there are, which are made, and what they hold."""
    from onnx_asgnas.converters import environments

    found = environments.status()
    if as_json:
        print_json({e.name: {"state": e.state, "folder": str(e.folder), "packages": e.packages} for e in found})
        return
    rows = [[e.name, e.state, ", ".join(e.packages)] for e in found]
    draw_table("", ["environment", "state", "packages"], rows, left=3)


@env.command("remove")
def remove(name: Name, debug: Debug = False) -> None:
    """Delete an environment."""
    from onnx_asgnas.converters import environments

    found = environments.find(name)
    say(f"{found.folder} is gone" if environments.remove(name) else f"there was no {found.folder}")
