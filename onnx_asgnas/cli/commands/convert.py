"""`convert`: from a source in any framework to an ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json
from onnx_asgnas.cli.screen import print_json, say

if TYPE_CHECKING:
    from onnx_asgnas.converters import Conversion


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="FILE.onnx, models:NAME, torch:pkg.mod:factory, torch:FILE.pt2, torchvision:NAME, timm:NAME, "
            "hf:FOLDER, keras:FILE.keras, sklearn:FILE.joblib, jax:pkg.mod:function, saved_model:FOLDER, tflite:FILE, "
            "tensorflow:pkg.mod:function, paddle:FOLDER. Arguments of a factory: ?name=value&name=value.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the ONNX model goes.")],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="SPEC",
            help="What the model reads, as 'x:float32[N,3,32,32]'. Once for each input; batch.image and pair.0 are "
            "entries of a dict and a tuple.",
        ),
    ] = [],  # noqa: B006
    unfold_bn: Annotated[
        bool,
        typer.Option(
            "--unfold-bn", help="Put a BatchNormalization, exactly an identity, behind each Conv that lost its own."
        ),
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load pickles and other files that run code when they are loaded.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            min=1,
            help="Stop a conversion after this long. Default: 1800 in an environment of its own, else none.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make an ONNX model of a network in any framework, and check it against the source.

        onnx-asgnas convert "models:stackedunets?width=16" -o unets.onnx

        onnx-asgnas convert torch:mynets:resnet --input "x:float32[N,3,32,32]" -o resnet.onnx

        onnx-asgnas convert keras:net.keras -o net.onnx

    Parameter names and BatchNormalization are kept where the exporter allows it, the batch axis is open. What an
    exporter that fails has printed goes to OUTPUT.log.
    """
    from onnx_asgnas.converters import convert_with_report
    from onnx_asgnas.graph import save_model

    found = convert_with_report(
        source,
        inputs=inputs,
        unfold_bn=unfold_bn,
        trust=trust,
        time_limit=time_limit,
        log=output.with_name(f"{output.name}.log"),
    )
    save_model(found.model, output)
    facts = _facts(found, output)
    if as_json:
        print_json(facts)
    else:
        for line in _lines(found, facts):
            say(line)


def _facts(found: Conversion, output: Path) -> dict[str, Any]:
    from onnx_asgnas.graph import TraceGraph
    from onnx_asgnas.operators import rules_of
    from onnx_asgnas.space import cost_of

    graph = TraceGraph.of(found.model)
    cost = cost_of(graph, rules_of(graph))
    return {
        "output": str(output),
        "operators": dict(found.operators),
        "params": cost.params,
        "macs": cost.macs,
        "max_relative_difference": found.max_relative_difference,
        "batch_sizes": list(found.batch_sizes),
        "exporter": found.exporter,
        "environment": found.environment,
        "names": {
            "kept": len(found.names.kept),
            "renamed": dict(found.names.renamed),
            "scaled": list(found.names.scaled),
            "lost": list(found.names.lost),
        },
        "batch_normalizations": {
            "source": found.normalisations,
            "folded": found.folded,
            "unfolded": found.unfolded,
        },
        "notes": list(found.notes),
    }


def _lines(found: Conversion, facts: dict[str, Any]) -> list[str]:
    """The report in words."""
    from onnx_asgnas.report.numbers import count

    operators = sum(found.operators.values())
    lines = [
        f"{facts['output']}: {operators} operators, {count(facts['params'])} parameters, "
        f"{count(facts['macs'])} MACs an example"
    ]
    if found.exporter is not None:
        where = f", in the environment {found.environment}" if found.environment else ""
        lines.append(f"written by {found.exporter}{where}")
    if found.max_relative_difference is not None:
        sizes = " and ".join(map(str, found.batch_sizes))
        lines.append(
            f"same output as the source at batch {sizes}: relative difference {found.max_relative_difference:.1e}"
        )
    lines += _of_names(found)
    lines += _of_normalisations(found)
    return [*lines, *found.notes]


def _of_names(found: Conversion) -> list[str]:
    names = found.names
    total = len(names.kept) + len(names.renamed) + len(names.lost)
    if not total:
        return []
    given = f", {len(names.renamed)} of them given back" if names.renamed else ""
    lines = [f"{total - len(names.lost)} of {total} parameters have the source's names{given}"]
    if names.scaled:
        lines.append(f"{len(names.scaled)} of these are kernels with a normalisation folded in")
    if names.lost:
        shown = ", ".join(names.lost[:3]) + (", …" if len(names.lost) > 3 else "")
        lines.append(f"without their names, since they were folded, or hold the same values as others: {shown}")
    return lines


def _of_normalisations(found: Conversion) -> list[str]:
    lines = []
    if found.folded and not found.unfolded:
        lines.append(
            f"{found.folded} of {found.normalisations} batch normalisations are no BatchNormalization any more: the "
            "exporter folded them, or wrote them in other operators; --unfold-bn puts an identity behind each "
            "convolution that lost one"
        )
    if found.unfolded:
        lines.append(f"{found.unfolded} BatchNormalizations put in as identities")
    return lines
