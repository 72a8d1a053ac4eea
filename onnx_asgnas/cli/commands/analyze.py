"""`analyze`: what can be removed from a model, and what not and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Gates, Json, Mode, Protect, Strict
from onnx_asgnas.cli.screen import draw_table, print_json, say, shortened

if TYPE_CHECKING:
    from onnx_asgnas.space import SearchSpace
    from onnx_asgnas.space.families import ChannelFamily

_MOST_FAMILIES = 16
"""In longer tables layers that are alike share a row."""


@app.command()
def analyze(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    mode: Mode = "erase",
    gates: Gates = False,
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
    """Show what can be removed from a model: whole structures, channels of each layer, what each saves.

    onnx-asgnas analyze unets.onnx                                # structures, and which contains which

    onnx-asgnas analyze resnet50.onnx --mode prune --explain      # channels by layer, what stays and why

    onnx-asgnas analyze unets.onnx --gates                        # skip connections and poolings too

    onnx-asgnas analyze unets.onnx --mode joint --html space.html # a page to look at, with both
    """
    from onnx_asgnas.config import check_gates
    from onnx_asgnas.graph import write_atomically
    from onnx_asgnas.space import analyze as analyze_model
    from onnx_asgnas.space.gates import add_gates

    check_gates(mode, gates=gates)  # type: ignore[arg-type]
    source = add_gates(model) if gates else model
    space = analyze_model(source, mode=mode, protect=protect, strict=strict)  # type: ignore[arg-type]
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
    from onnx_asgnas.report.numbers import count

    say(f"{model}: {count(space.params)} parameters, {count(space.macs)} multiply-accumulates an example")
    families = space.channel_families() if space.mode != "erase" else ()
    if not any(s.erasable for s in space.structures) and not any(family.free for family in families):
        say("nothing can be removed; --explain says why")
        return
    if space.mode != "prune":
        _draw_structures(space)
    if space.mode != "erase":
        _draw_families(space, families)


def _draw_structures(space: SearchSpace) -> None:
    erasable = [s for s in space.structures if s.erasable]
    minimal = sum(s.minimal for s in erasable)
    say(
        f"{minimal} minimal removal structures, {len(erasable) - minimal} larger ones; "
        f"at most {space.max_removable.structures} can go together\n"
    )
    nested = any(s.parent for s in erasable)
    rows = [
        [
            shortened(s.tensor, 40 if nested else 56),
            "minimal" if s.minimal else "larger",
            *([shortened(s.parent or "–", 24)] if nested else []),
            str(len(s.region)),
            *_savings(space, s.params, s.macs),
        ]
        for s in erasable
    ]
    header = ["structure", "kind", *(["inside of"] if nested else []), "operators", "params", "MACs"]
    if rows:
        draw_table("", header, rows, left=3 if nested else 2)
        say()


def _draw_families(space: SearchSpace, families: Sequence[ChannelFamily]) -> None:
    from onnx_asgnas.report.channels import family_rows
    from onnx_asgnas.report.numbers import count

    free = [family for family in families if family.free]
    total, most = sum(family.groups for family in families), space.max_removable
    least = f"{count(space.params - most.params)} parameters and {count(space.macs - most.macs)} MACs"
    say(
        f"{sum(family.free for family in free):,} of {total:,} channel groups may leave, in {len(free)} of "
        f"{len(families)} layers; at least {least} stay\n"
    )
    rows = family_rows(free, _MOST_FAMILIES)
    table = [
        [
            shortened(row.name),
            str(row.count),
            *(f"{number:,}" for number in (row.families[0].channels, row.families[0].groups, row.families[0].free)),
            *_savings(space, row.params, row.macs),
        ]
        for row in rows
    ]
    header = ["channels of", "layers", "width", "groups", "free", "params", "MACs"]
    if all(row.count == 1 for row in rows):
        header, table = [h for h in header if h != "layers"], [[line[0], *line[2:]] for line in table]
    if table:
        draw_table("", header, table)
        say(
            "\nA group is what leaves together: a channel, a head. Savings are those of all free groups of one layer\n"
            "(the mean where several are alike). Layers whose outputs are added share their groups, and count as one."
        )


def _savings(space: SearchSpace, params: int, macs: int) -> list[str]:
    from onnx_asgnas.report.numbers import count, percent

    return [
        f"{count(params)} ({percent(params / max(space.params, 1))})",
        f"{count(macs)} ({percent(macs / max(space.macs, 1))})",
    ]


def _explain(space: SearchSpace) -> None:
    from onnx_asgnas.report.channels import frozen_rows, kept_rows

    kept = [[shortened(s.tensor), s.reason] for s in space.structures if not s.erasable]
    if kept:
        say()
        draw_table("What only joints read, but must stay", ["tensor", "why"], kept, left=2)
    frozen = [
        [row.what or "–", row.reason, shortened(row.example), f"{row.count:,}", f"{row.groups:,}"]
        for row in frozen_rows(space)
    ]
    if frozen:
        say()
        header = ["operator", "why", "which", "operators", "channel groups"]
        draw_table("What keeps channels", header, frozen, left=3)
    stay = [[row.reason, shortened(row.example), f"{row.count:,}", f"{row.groups:,}"] for row in kept_rows(space)]
    if stay:
        say()
        draw_table("Which channels stay", ["why", "channels of", "layers", "channel groups"], stay, left=2)
    if space.protected:
        say(f"\nprotected: {', '.join(map(escape, space.protected[:8]))}{' …' if len(space.protected) > 8 else ''}")
    if space.unknown:
        say(f"\nunknown operators, kept with all they touch: {', '.join(map(escape, space.unknown))}")
    total, free = space.channel_groups.total, space.channel_groups.free
    say(f"\n{total:,} channel groups, of which {free:,} could leave by themselves")
