"""`export`: from a compact model back to PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_asgnas.cli.app import app
from onnx_asgnas.cli.options import Debug, Json, Seed, one_of
from onnx_asgnas.cli.screen import print_json, say


@app.command()
def export(
    compact: Annotated[Path, typer.Argument(metavar="COMPACT", help="The ONNX model, compact or any other.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.py|DIR", help="Where the code goes, its weights beside it."),
    ],
    to: Annotated[str, typer.Option("--to", callback=one_of("torch"), help="What is written: torch.")] = "torch",
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model as a PyTorch module: one readable file of code, and its weights as safetensors beside it.

        onnx-asgnas export compact.onnx --to torch -o compact.py

    The code needs torch and safetensors and nothing else. It is run against the model before anything is written.
    """
    from onnx_asgnas.export import export_torch

    written = export_torch(compact, output, seed=seed)
    found = written.agreement
    if as_json:
        print_json(
            {
                "code": str(written.code),
                "weights": str(written.weights),
                "lines": written.lines,
                "classes": written.classes,
                "max_relative_difference": found.largest,
                "float32_difference": found.rounded,
                "batch_sizes": list(found.batches),
            }
        )
        return
    say(f"{written.code}: {written.lines} lines, {written.classes} classes; weights: {written.weights}")
    sizes = " and ".join(map(str, found.batches))
    if found.rounded == found.largest:
        say(f"same output as the model at batch {sizes}: relative difference {found.largest:.1e}")
        return
    say(f"same output as the model in float64 at batch {sizes}: relative difference {found.largest:.1e}")
    say(f"in float32, where the network's own rounding shows, {found.rounded:.1e} from onnxruntime")
