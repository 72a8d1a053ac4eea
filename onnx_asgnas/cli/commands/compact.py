"""`construct`, `verify`, `benchmark`: from a trained model to a compact one, and whether it is the same and smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json, Seed, Threads
from onnx_asgnas.cli.screen import count, out, percent, print_json, table


def draw_comparison(facts: dict[str, Any]) -> None:
    """The table of the full model against the compact one, and the verification in one line."""
    from onnx_asgnas.report import comparison_rows

    header, *rows = comparison_rows(facts)
    out.print()
    out.print(table("", header, rows))
    if facts.get("verified"):
        out.print(verification_line(facts["verified"]))


def verification_line(verified: dict[str, Any]) -> str:
    """The verification in one line."""
    word = "[green]verified[/]" if verified["passed"] else "[bold red]NOT the same[/]"
    moved = verified.get("moved")
    tail = "" if moved is None else f" (what was removed would have moved it by {moved:.1e})"
    return f"\n{word}: largest relative difference {verified['max_relative_difference']:.1e}{tail}"
