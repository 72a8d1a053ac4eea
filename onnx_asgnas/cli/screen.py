"""What the command line draws: numbers, tables, progress. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from onnx_asgnas.training.events import Event

_out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
_MOST_METRICS = 3
"""So many stand beside the progress bar; the run directory has all."""


def say(text: str = "") -> None:
    """A line on stdout, which the terminal may wrap but nobody else does: paths stay whole."""
    _out.print(text, soft_wrap=True)


def complain(text: str) -> None:
    """A line on stderr, wrapped by nobody but the terminal."""
    err.print(text, soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, and nothing else."""
    print(json.dumps(value))


def draw_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, bars: int = 0
) -> None:
    """A table on stdout: the first `left` columns are text, the last `bars` are drawings, the others numbers."""
    drawn = Table(title=title or None, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for at, name in enumerate(header):
        drawing = at >= len(header) - bars
        drawn.add_column(name, justify="left" if at < left or drawing else "right", overflow="fold", no_wrap=drawing)
    for row in rows:
        drawn.add_row(*map(escape, row))
    _out.print(drawn)


def shortened(name: str, most: int = 40) -> str:
    """A name without its middle where it is too long for a column; the end tells more than the beginning."""
    head = most // 4
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"


def draw_comparison(facts: dict[str, Any]) -> None:
    """The table of the full model against the compact one, and the verification in one line."""
    from onnx_asgnas.report import comparison_rows

    header, *rows = comparison_rows(facts)
    say()
    draw_table("", header, rows)
    if facts.get("verified"):
        say(verification_line(facts["verified"]))


def verification_line(verified: dict[str, Any]) -> str:
    """The verification in one line."""
    word = "[green]verified[/]" if verified["passed"] else "[bold red]NOT the same[/]"
    difference = verified["max_relative_difference"]
    figure = "not comparable" if difference is None else f"{difference:.1e}"
    moved = verified.get("moved")
    tail = "" if moved is None else f" (what was removed moves the output by {moved:.1e})"
    return f"{word}: largest relative difference {figure}{tail}"


class _Facts(ProgressColumn):
    """Phase, epoch, loss, metrics and groups at zero, as the last event tells them."""

    def render(self, task: Task) -> Text:
        """The facts of a task."""
        return Text(str(task.fields.get("facts", "")))


@contextmanager
def training_progress() -> Iterator[Any]:
    """A progress bar for training events; where stderr is no terminal, a line for each epoch instead."""
    if not err.is_terminal:
        yield _print_epoch
        return
    with Progress(
        TextColumn("[bold]{task.description:<8}"),
        BarColumn(bar_width=12),
        _Facts(),
        TimeRemainingColumn(compact=True),
        console=err,
        transient=False,
    ) as progress:
        task = progress.add_task("starting", total=None, facts="")

        def show(event: Event) -> None:
            progress.update(
                task, description=event.phase, total=event.total_steps, completed=event.step, facts=_facts(event)
            )
            if event.kind == "phase":
                progress.console.print(_phase_line(event))

        yield show


def _facts(event: Event) -> str:
    from onnx_asgnas.report.numbers import metric

    figures = "".join(f"  {name} {metric(name, value)}" for name, value in list(event.metrics.items())[:_MOST_METRICS])
    groups = f"  zero {event.groups_at_zero}/{event.groups_chosen}" if event.groups_chosen else ""
    return f"epoch {event.epoch}/{event.epochs}  loss {event.loss:.3f}{figures}{groups} "


def _phase_line(event: Event) -> str:
    chosen = f"{event.groups_chosen:,} group{'s' if event.groups_chosen != 1 else ''}"
    if event.phase == "hybrid":
        return f"step {event.step}: {chosen} chosen (with all inside), going to zero now"
    return f"step {event.step}: {chosen} at zero, training goes on without"


def _print_epoch(event: Event) -> None:
    if event.kind == "phase":
        complain(_phase_line(event))
    elif event.kind == "epoch":
        complain(f"{event.phase:<8} {_facts(event)} {event.seconds:.0f} s")
