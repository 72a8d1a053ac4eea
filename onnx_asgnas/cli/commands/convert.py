"""`convert`: from a source in any framework to an ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json
from onnx_asgnas.cli.screen import print_json, say


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="models:NAME[?arg=value], torch:pkg.mod:factory[?arg=value], or FILE.onnx"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the ONNX model goes.")],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input", metavar="SPEC", help="What the model reads, as 'x:float32[N,3,32,32]'. Once for each input."
        ),
    ] = [],  # noqa: B006
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make an ONNX model of a network in any framework, and check it against the source.

        onnx-asgnas convert "models:stackedunets?width=16" -o unets.onnx

        onnx-asgnas convert torch:mynets:resnet --input "x:float32[N,3,32,32]" -o resnet.onnx

    Parameter names and BatchNormalization are kept, the batch axis is open.
    """
    from onnx_asgnas.converters import convert_with_report
    from onnx_asgnas.graph import TraceGraph, save_model
    from onnx_asgnas.operators import rules_of
    from onnx_asgnas.report.numbers import count
    from onnx_asgnas.space import cost_of

    found = convert_with_report(source, inputs=inputs)
    graph = TraceGraph.of(found.model)
    cost = cost_of(graph, rules_of(graph))
    save_model(found.model, output)
    if as_json:
        print_json(
            {
                "output": str(output),
                "operators": dict(found.operators),
                "params": cost.params,
                "macs": cost.macs,
                "max_relative_difference": found.max_relative_difference,
                "batch_sizes": list(found.batch_sizes),
            }
        )
        return
    operators = sum(found.operators.values())
    say(f"{output}: {operators} operators, {count(cost.params)} parameters, {count(cost.macs)} MACs an example")
    if found.max_relative_difference is not None:
        sizes = " and ".join(map(str, found.batch_sizes))
        say(f"same output as the source at batch {sizes}: relative difference {found.max_relative_difference:.1e}")
