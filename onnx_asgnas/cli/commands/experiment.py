"""`experiment` and `results`: runs that belong together, and the page of tables that they give."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json, Threads
from onnx_asgnas.cli.screen import complain, draw_table, print_json, say, training_progress

if TYPE_CHECKING:
    from onnx_asgnas.experiments import Experiment, Run, Runner

ALL = "all"
"""The name that stands for every experiment which needs no folder."""

_EXAMPLES = """Examples:

- Which there are, and how long each takes: `onnx-asgnas experiment`

- Everything on Fashion-MNIST, and how long that takes: `onnx-asgnas experiment all --estimate`

- The same, two runs at a time: `onnx-asgnas experiment all --jobs 2`

- Runs on Fashion-MNIST that are not finished yet: `onnx-asgnas experiment stackedunets-6k`

- The paper's own setting, on images of yours: `onnx-asgnas experiment paper/darts-stl10 --data-dir ~/stl10`

- An experiment of your own: `onnx-asgnas experiment mine.toml`
"""


@app.command(epilog=_EXAMPLES)
def experiment(
    name: Annotated[str | None, typer.Argument(metavar="[NAME|FILE.toml|all]", help="Left out: list them.")] = None,
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="The folder of the images (docs/data.md).")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the run directories go.")] = Path(
        "runs/experiments"
    ),
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="FILE", help="Where finished runs are kept (default: DIR/results.jsonl)."),
    ] = None,
    only: Annotated[str, typer.Option("--only", metavar="PATTERN", help="Do only the runs of such names.")] = "*",
    estimate: Annotated[bool, typer.Option("--estimate", help="Say how long it will take, and do nothing.")] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="So many runs at once, each in a process and thread of its own.")
    ] = 1,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Do the runs of an experiment that are not finished: methods and seeds on one network.

    One after another, or --jobs at a time: small networks gain nothing from a second thread. Finished runs are a line
    of JSON each. Ctrl-C stops after the step; the same command goes on from there. How long it will take is said
    before, and how long it took behind it.
    """
    from onnx_asgnas import experiments
    from onnx_asgnas.errors import InputError
    from onnx_asgnas.report.numbers import duration

    if name is None:
        _list(as_json)
        return
    found = experiments.queue() if name == ALL else (experiments.read(name),)
    runner = experiments.Runner(
        folder=output, results=results or output / "results.jsonl", data_dir=data_dir, threads=threads
    )
    names = [run.name for one in found for run in runner.runs(one)]
    if not any(fnmatch(run, only) for run in names):
        raise InputError(f"no run is called {only!r}", fix=f"They are called like {names[0]}; * stands for anything.")
    missing = [run for one in found for run in runner.missing(one) if fnmatch(run.name, only)]
    expected = runner.estimate(missing) / max(1, min(jobs, len(missing)))
    if not as_json:
        _plan(found, missing, runner, f"{duration(expected)}{f' with {jobs} at a time' if jobs > 1 else ''}")
    if estimate:
        if as_json:
            print_json({"runs": [run.name for run in missing], "seconds": expected})
        return
    began = monotonic()
    if jobs == 1:
        lines = _done(missing, runner, quiet=as_json)
    else:
        lines = _done_at_once(missing, runner, None if name == ALL else name, jobs, quiet=as_json)
    if as_json:
        print_json({"runs": lines})
    elif lines:
        told = "1 run" if len(lines) == 1 else f"{len(lines)} runs"
        say(f"{told} took {duration(monotonic() - began)}; {duration(expected)} were expected")


def _done(missing: list[Run], runner: Runner, *, quiet: bool) -> list[dict[str, Any]]:
    """Do these runs; what came of each is said as soon as it is there."""
    lines = []
    for run in missing:
        try:
            with training_progress() as show:
                lines.append(runner.do(run, show))
        except KeyboardInterrupt:
            complain(f"interrupted in {run.name}; go on with the same command")
            raise
        if not quiet:
            say(_told(lines[-1]))
    return lines


def _done_at_once(
    missing: list[Run], runner: Runner, source: str | None, jobs: int, *, quiet: bool
) -> list[dict[str, Any]]:
    """Do these runs, several at a time."""
    from onnx_asgnas.cli.side_by_side import side_by_side

    lines = []
    try:
        for line in side_by_side(missing, runner, source, jobs):
            lines.append(line)
            if not quiet:
                say(_told(line))
    except KeyboardInterrupt:
        complain("interrupted; go on with the same command")
        raise
    return lines


def _plan(found: tuple[Experiment, ...], missing: list[Run], runner: Runner, about: str) -> None:
    """Say what is to be done: how long each experiment takes one run after another, and all of them (`about`)."""
    from onnx_asgnas.report.numbers import duration

    if not missing:
        say(f"nothing to do: each of these runs has a line in {runner.results}")
        return
    rows = []
    for one in found:
        left = [run for run in missing if run.experiment is one]
        rows.append((one.title, f"{len(left)} of {len(runner.runs(one))}", duration(runner.estimate(left))))
    if len(rows) > 1:
        draw_table("", ["experiment", "runs to do", "about"], rows, left=1)
        say(f"{len(missing)} runs, about {about}")
    else:
        title, count, _ = rows[0]
        say(f"{title}: {count} runs, about {about}")


def _told(line: dict[str, object]) -> str:
    accuracy = line["accuracy"]
    shown = f"{100 * accuracy:.2f} %" if isinstance(accuracy, float) else "no accuracy"
    return f"{line['name']}: {shown}, {line['params']:,} parameters, {line['seconds']:.0f} s"


def _list(as_json: bool) -> None:
    from onnx_asgnas import experiments
    from onnx_asgnas.report.numbers import duration

    found = [experiments.read(name) for name in experiments.names()]
    if as_json:
        print_json({"experiments": [{"name": e.name, "title": e.title} for e in found]})
        return
    for title, published in (("On Fashion-MNIST, for two cores", False), ("The paper's own settings", True)):
        rows = []
        for e in found:
            if e.name.startswith("paper/") == published:
                runs = sum(len(e.seeds_of(method)) for method in e.all_methods)
                what = e.title.removesuffix(", the paper's setting")
                rows.append([e.name, what, str(runs), duration(runs * e.seconds)])
        draw_table(title, ["experiment", "what", "runs", "about"], rows, left=2)
        say()


@app.command()
def results(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Lines of JSON, as `experiment` keeps them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the page goes (default: stdout).")
    ] = None,
    also: Annotated[
        list[str], typer.Option("--experiment", metavar="FILE.toml", help="An experiment of your own. May be repeated.")
    ] = [],  # noqa: B006
    plots: Annotated[
        bool, typer.Option("--plots/--no-plots", help="Draw SVG pictures into a folder named like the page.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Make a page of tables (Markdown) of the runs that are finished, with pictures if it is written to a file."""
    from onnx_asgnas import experiments
    from onnx_asgnas.errors import InputError
    from onnx_asgnas.experiments.plots import draw_all
    from onnx_asgnas.experiments.tables import page
    from onnx_asgnas.graph import write_atomically

    if not source.is_file():
        raise InputError(f"{source} does not exist", fix="Do some runs first: onnx-asgnas experiment NAME.")
    lines = experiments.Runner(folder=source.parent, results=source).finished().values()
    known = [experiments.read(name) for name in (*experiments.names(), *also)]
    if output is None:
        typer.echo(page(known, lines))
        return
    drawn = draw_all(known, lines, output.with_suffix("")) if plots else {}
    pictures = {
        name: [(picture.title, f"{output.stem}/{picture.file.name}") for picture in some]
        for name, some in drawn.items()
    }
    write_atomically(output, page(known, lines, pictures).encode())
    say(f"wrote {output}" + (f" and {sum(map(len, pictures.values()))} pictures" if plots else ""))
