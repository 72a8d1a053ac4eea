"""`experiment` and `results`: runs that belong together, and the page of tables that they give."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json, Threads
from onnx_asgnas.cli.screen import complain, draw_table, print_json, say, training_progress

_EXAMPLES = """Examples:

- Which there are, and how long each takes: `onnx-asgnas experiment`

- Runs on Fashion-MNIST that are not finished yet: `onnx-asgnas experiment stackedunets-6k`

- The paper's own setting, on images of yours: `onnx-asgnas experiment paper/darts-stl10 --data-dir ~/stl10`

- An experiment of your own: `onnx-asgnas experiment mine.toml`
"""


@app.command(epilog=_EXAMPLES)
def experiment(
    name: Annotated[str | None, typer.Argument(metavar="[NAME|FILE.toml]", help="Left out: list them.")] = None,
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
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Do the runs of an experiment that are not finished, one after another: methods and seeds on one network.

    Finished runs are a line of JSON each. Ctrl-C stops after the step; the same command goes on from there.
    """
    from onnx_asgnas import experiments

    if name is None:
        _list(as_json)
        return
    found = experiments.read(name)
    runner = experiments.Runner(
        folder=output, results=results or output / "results.jsonl", data_dir=data_dir, threads=threads
    )
    missing = [run for run in runner.missing(found) if fnmatch(run.name, only)]
    if not as_json:
        total = len(runner.runs(found))
        say(f"{found.title}: {len(missing)} of {total} runs, about {len(missing) * found.seconds / 60:.0f} minutes")
    if estimate:
        if as_json:
            print_json({"runs": [run.name for run in missing], "seconds": len(missing) * found.seconds})
        return
    lines = []
    for run in missing:
        try:
            with training_progress() as show:
                lines.append(runner.do(run, show))
        except KeyboardInterrupt:
            complain(f"interrupted in {run.name}; go on with the same command")
            raise
        if not as_json:
            say(_told(lines[-1]))
    if as_json:
        print_json({"runs": lines})


def _told(line: dict[str, object]) -> str:
    accuracy = line["accuracy"]
    shown = f"{100 * accuracy:.2f} %" if isinstance(accuracy, float) else "no accuracy"
    return f"{line['name']}: {shown}, {line['params']:,} parameters, {line['seconds']:.0f} s"


def _list(as_json: bool) -> None:
    from onnx_asgnas import experiments

    found = [experiments.read(name) for name in experiments.names()]
    if as_json:
        print_json({"experiments": [{"name": e.name, "title": e.title} for e in found]})
        return
    rows = [
        [e.name, e.title, str(len(e.methods) * len(e.seeds)), f"{len(e.methods) * len(e.seeds) * e.seconds / 60:,.0f}"]
        for e in found
    ]
    draw_table("", ["experiment", "what", "runs", "minutes"], rows, left=2)


@app.command()
def results(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Lines of JSON, as `experiment` keeps them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the page goes (default: stdout).")
    ] = None,
    also: Annotated[
        list[str], typer.Option("--experiment", metavar="FILE.toml", help="An experiment of your own. May be repeated.")
    ] = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Make a page of tables (Markdown) of the runs that are finished."""
    from onnx_asgnas import experiments
    from onnx_asgnas.errors import InputError
    from onnx_asgnas.experiments.tables import page
    from onnx_asgnas.graph import write_atomically

    if not source.is_file():
        raise InputError(f"{source} does not exist", fix="Do some runs first: onnx-asgnas experiment NAME.")
    lines = experiments.Runner(folder=source.parent, results=source).finished().values()
    text = page([experiments.read(name) for name in (*experiments.names(), *also)], lines)
    if output is None:
        typer.echo(text)
    else:
        write_atomically(output, text.encode())
        say(f"wrote {output}")
