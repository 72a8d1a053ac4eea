"""`construct`, `verify`, `benchmark`: from a trained model to a compact one, and whether it is the same and smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json, Protect, Seed, TaskLoss, TaskMetrics, Threads
from onnx_asgnas.cli.screen import draw_comparison, print_json, say, verification_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@app.command()
def construct(
    trained: Annotated[Path, typer.Argument(metavar="TRAINED", help="A model in which some groups are exactly zero.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the compact model goes.")],
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="Its search space; without it the model is analysed.")
    ] = None,
    protect: Protect = [],  # noqa: B006
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove what is exactly zero in a trained model, and check that the compact one gives the same.

    What is removed is read from the weights. On a model with nothing at zero it removes nothing.
    """
    from onnx_asgnas.evaluation import benchmark as measure
    from onnx_asgnas.evaluation import verify as check
    from onnx_asgnas.graph import TraceGraph, save_model
    from onnx_asgnas.space import SearchSpace
    from onnx_asgnas.space import analyze as analyze_model
    from onnx_asgnas.surgery import construct as construct_model

    graph = TraceGraph.of(trained)
    known = SearchSpace.read(space, graph) if space is not None else analyze_model(graph, mode="joint", protect=protect)
    compact = construct_model(graph, known)
    verification = check(graph.model, compact).require()
    save_model(compact, output)
    facts = measure(graph, compact, verification=verification, seconds=None).to_dict()
    if as_json:
        print_json(facts)
        return
    draw_comparison(facts)
    say(f"\ncompact model: {output}")


@app.command()
def verify(
    full: Annotated[Path, typer.Argument(metavar="FULL", help="The full model, with what was removed at zero.")],
    compact: Annotated[Path, typer.Argument(metavar="COMPACT", help="The model made from it.")],
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="npz:FILE", help="Real inputs, as arrays named like the model's inputs."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that two models give the same: at most 1e-5 apart, relative, on made-up and on your own inputs.

    The exit code is 1 if they do not; the first tensor that differs is named.
    """
    from onnx_asgnas.evaluation import verify as check

    found = check(full, compact, inputs=_read_inputs(inputs), seed=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        say(verification_line(found.to_dict()))
        for remark in found.remarks:
            say(escape(remark))
        if not found.passed:
            say(escape(found.explanation))
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def benchmark(
    full: Annotated[
        Path | None, typer.Argument(metavar="FULL", help="The model that the others are measured against.")
    ] = None,
    compact: Annotated[list[Path] | None, typer.Argument(metavar="[COMPACT]…", help="Models made from it.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Measure metrics on its test part: fashion-mnist-mini, npz:FILE, …")
    ] = None,
    loss: TaskLoss = "cross_entropy",
    metrics: TaskMetrics = "",
    batch: Annotated[int, typer.Option(min=1, help="Batch of the latency runs.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for the latency of each model.")] = 2.0,
    memory: Annotated[bool, typer.Option("--memory", help="Measure peak memory, in a process for each model.")] = False,
    frameworks: Annotated[
        bool, typer.Option("--frameworks", help="No FULL: the same two networks from PyTorch, Keras and Flax.")
    ] = False,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure models side by side: parameters, MACs, file size, latency in onnxruntime, metrics where data is given.

    The models are run in turn, so that the comparison holds on a noisy machine. A single COMPACT is verified too.
    With --frameworks, in a checkout of this project, docs/frameworks.md is made: about an hour of one core.
    """
    from onnx_asgnas.errors import InputError

    if frameworks:
        if full is not None:
            raise InputError("--frameworks has networks of its own", fix="Leave the models out.")
        raise typer.Exit(_across_frameworks(as_json=as_json))
    if full is None:
        raise InputError("there is no model to measure", fix="Give FULL, or --frameworks.")

    from onnx_asgnas.evaluation import benchmark as measure
    from onnx_asgnas.evaluation import verify as check
    from onnx_asgnas.graph import TraceGraph

    graphs = [TraceGraph.of(path) for path in [full, *(compact or [])]]
    split = judge = None
    if data is not None:
        from onnx_asgnas.runs import data_for, judge_for

        dataset = data_for(graphs[0], data, loss)
        judge = judge_for(graphs[0], loss, metrics)
        split = dataset.test or dataset.train
    verification = check(graphs[0].model, graphs[1].model, seed=seed) if len(graphs) == 2 else None
    facts = measure(
        *graphs,
        split=split,
        judge=judge,
        verification=verification,
        batch=batch,
        threads=threads,
        seconds=seconds,
        memory=memory,
        seed=seed,
    ).to_dict()
    if as_json:
        print_json(facts)
    else:
        draw_comparison(facts)


def _across_frameworks(*, as_json: bool) -> int:
    """Run the script of the checkout that measures it; its exit code. Raises InputError where there is no checkout."""
    import subprocess
    import sys

    import onnx_asgnas
    from onnx_asgnas.errors import InputError

    checkout = Path(onnx_asgnas.__file__).parents[1]
    script = checkout / "benchmarks" / "frameworks.py"
    if not script.is_file():
        raise InputError(
            "the comparison of frameworks comes with a checkout of this project, and this is an installed package",
            fix="Clone the repository, and there: pip install -c constraints.txt -e '.[cpu,bench]'.",
        )
    done = subprocess.run([sys.executable, str(script)], stdout=sys.stderr if as_json else None, check=False)
    if as_json and not done.returncode:
        lines = (checkout / "docs" / "frameworks.jsonl").read_text(encoding="utf-8").splitlines()
        print_json({"records": [json.loads(line) for line in lines]})
    return done.returncode


def _read_inputs(text: str | None) -> dict[str, NDArray[np.generic]] | None:
    """The arrays of `npz:FILE`; raises DataError where there are none."""
    import numpy as np

    from onnx_asgnas.errors import DataError

    if text is None:
        return None
    scheme, _, path = text.partition(":")
    if scheme != "npz" or not path:
        raise DataError(f"inputs cannot be read from {text!r}", fix="Give npz:FILE, with an array for each input.")
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays: dict[str, Any] = {name: content[name] for name in content.files}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="Write it with numpy.savez.", path=path) from None
    return arrays
