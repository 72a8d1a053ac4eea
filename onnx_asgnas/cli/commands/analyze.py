"""`analyze`: what can be removed from a model, and what not and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json, Mode, Protect, Strict
from onnx_asgnas.cli.screen import draw_table, print_json, say

if TYPE_CHECKING:
    from onnx_asgnas.space import SearchSpace


@app.command()
def analyze(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    mode: Mode = "erase",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Keep the search space as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Draw the search space as a page for the browser.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say for everything that must stay why.")] = False,
    protect: Protect = [],  # noqa: B006
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the removal structures of a model: what each saves, which contains which, how much can go at once."""
    from onnx_asgnas.graph import write_atomically
    from onnx_asgnas.space import analyze as analyze_model

    if mode not in ("erase", "prune", "joint"):
        raise typer.BadParameter(f"{mode!r} is none of: erase, prune, joint", param_hint="--mode")
    space = analyze_model(model, mode=mode, protect=protect, strict=strict)  # type: ignore[arg-type]
    if output is not None:
        write_atomically(output, space.to_json().encode())
    if html is not None:
        _write_page(space, model, html)
    if as_json:
        print_json(space.to_dict())
        return
    _draw(space, model)
    if explain:
        _explain(space)


def _write_page(space: SearchSpace, model: Path, path: Path) -> None:
    from onnx_asgnas.graph import write_atomically
    from onnx_asgnas.report.space_page import space_page

    write_atomically(path, space_page(space, model.name).encode())


def _draw(space: SearchSpace, model: Path) -> None:
    from onnx_asgnas.report.numbers import count, percent

    say(f"{model}: {count(space.params)} parameters, {count(space.macs)} multiply-accumulates an example")
    erasable = [s for s in space.structures if s.erasable]
    if not erasable:
        say("nothing can be removed; --explain says why")
        return
    minimal = sum(s.minimal for s in erasable)
    most = space.max_removable
    say(
        f"{minimal} minimal removal structures, {len(erasable) - minimal} larger ones; "
        f"at most {most.structures} can go together\n"
    )
    rows = [
        [
            s.tensor,
            "minimal" if s.minimal else "larger",
            s.parent or "–",
            str(len(s.region)),
            f"{count(s.params)} ({percent(s.params / max(space.params, 1))})",
            f"{count(s.macs)} ({percent(s.macs / max(space.macs, 1))})",
        ]
        for s in erasable
    ]
    draw_table("", ["structure", "kind", "inside of", "operators", "parameters", "MACs"], rows, left=3)


def _explain(space: SearchSpace) -> None:
    kept = [[s.tensor, s.reason] for s in space.structures if not s.erasable]
    if kept:
        say()
        draw_table("What only joints read, but must stay", ["tensor", "why"], kept, left=2)
    if space.frozen:
        rows = [[f.node or "–", f.op_type or "–", f.reason, str(f.channels)] for f in space.frozen]
        say()
        draw_table("What keeps channels", ["operator", "type", "why", "channel groups"], rows, left=3)
    if space.unknown:
        say(f"\nunknown operators, kept with all they touch: {', '.join(space.unknown)}")
    total, free = space.channel_groups.total, space.channel_groups.free
    say(f"\n{total} channel groups, of which {free} could leave by themselves")
