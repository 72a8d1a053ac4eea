"""Latency of one network: whole, cut by us, and cut by torch-pruning to as many parameters.

    python -m benchmarks.peers.latency NAME FOLDER SECONDS THREADS...

pruned_latency.py runs it for each.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx

from benchmarks.peers import pruner
from benchmarks.peers.networks import export_module, file_of, module_of
from benchmarks.peers.pairs import report
from benchmarks.peers.records import circumstances
from onnx_asgnas.config import Target
from onnx_asgnas.evaluation.latency import measure_latency
from onnx_asgnas.pruning import cut

_RATIO = 0.5
ROUNDED = 8
"""The other variant: every layer keeps a multiple of so many channels."""


def main() -> None:
    """Make the models, measure them with each number of threads, and report."""
    name, folder, seconds, *threads = sys.argv[1:]
    source = onnx.load(file_of(name, "torchscript", Path(folder)))
    models, facts = {"full": source}, {"full": {"params": 1.0}}
    for round_to in (1, ROUNDED):
        variant = "" if round_to == 1 else f", round_to={round_to}"
        result = cut(source, Target(uniform=_RATIO), round_to=round_to)
        models[f"compact{variant}"], facts[f"compact{variant}"] = result.compact, dict(result.kept)
        model, found = theirs(name, result.kept["params"], round_to)
        facts[f"torch-pruning{variant}"] = found
        if model is not None:
            models[f"torch-pruning{variant}"] = model
    report([measured(name, models, facts, int(count), float(seconds)) for count in threads])


def theirs(name: str, kept: float, round_to: int) -> tuple[onnx.ModelProto | None, dict[str, Any]]:
    """torch-pruning's result at this share of the parameters as ONNX, and what it is; None where it fails."""
    module, image = module_of(name)
    try:
        pruned, share, ratio = pruner.pruned_to(module, image, kept, None if round_to == 1 else round_to)
        with tempfile.TemporaryDirectory() as folder:
            return export_module(pruned, image, Path(folder, "pruned.onnx")), {"params": share, "pruning_ratio": ratio}
    except Exception as problem:  # whatever goes wrong in another's code is the result
        return None, {"refused": pruner.why(problem)}


def measured(
    name: str, models: dict[str, onnx.ModelProto], facts: dict[str, Any], threads: int, seconds: float
) -> dict[str, Any]:
    """Milliseconds of each model (the median), and the median of its time over the full model's in the same round."""
    around = circumstances()
    found = measure_latency(list(models.values()), batch=1, threads=threads, seconds=seconds)
    rows = {label: facts[label] | _row(one) for label, one in zip(models, found, strict=True)}
    return {"kind": "latency", "model": name, "threads": threads, "models": facts | rows, **around}


def _row(one: Any) -> dict[str, float]:
    return {
        "milliseconds": round(one.median, 4),
        "p95": round(one.p95, 4),
        "ratio": round(one.ratio, 4),
        "runs": one.runs,
    }


if __name__ == "__main__":
    main()
