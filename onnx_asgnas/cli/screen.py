"""What the command line draws: numbers, tables, progress. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from onnx_asgnas.training.loop import Event

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, and nothing else."""
    print(json.dumps(value))


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """A table whose first `left` columns are text and the others numbers."""
    drawn = Table(title=title or None, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for at, name in enumerate(header):
        drawn.add_column(name, justify="left" if at < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def count(number: float | None) -> str:
    """A count as people read it: 12,610, or 2.56 M from a million on."""
    if number is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:,.0f}"


def percent(fraction: float | None) -> str:
    """A fraction in percent."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


class _Facts(ProgressColumn):
    """Phase, epoch, loss, accuracy and groups at zero, as the last event tells them."""

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
        BarColumn(bar_width=20),
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
    accuracy = "" if event.accuracy is None else f"  acc {100 * event.accuracy:.1f} %"
    groups = f"  zero {event.groups_at_zero}/{event.groups_chosen}" if event.groups_chosen else ""
    return f"epoch {event.epoch}/{event.epochs}  loss {event.loss:.3f}{accuracy}{groups} "


def _phase_line(event: Event) -> str:
    if event.phase == "hybrid":
        return f"step {event.step}: {event.groups_chosen} structures chosen, they go to zero now"
    return f"step {event.step}: all {event.groups_chosen} are at zero, training goes on without them"


def _print_epoch(event: Event) -> None:
    if event.kind == "phase":
        err.print(_phase_line(event))
    elif event.kind == "epoch":
        err.print(f"{event.phase:<8} {_facts(event)} {event.seconds:.0f} s")
