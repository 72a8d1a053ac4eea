"""One network at half the channels of every layer: what is left of it, ours and torch-pruning's.

    python -m benchmarks.peers.kept NAME FOLDER

depth.py runs it for each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import torch

from benchmarks.peers import pruner
from benchmarks.peers.networks import EXPORTERS, file_of, module_of
from benchmarks.peers.pairs import report
from benchmarks.peers.records import circumstances
from onnx_asgnas.config import Target
from onnx_asgnas.pruning import cut

_RATIO = 0.5


def main() -> None:
    """Measure one network, and report."""
    name, folder = sys.argv[1:]
    record = {
        "kind": "depth",
        "model": name,
        "ours": {exporter: ours(file_of(name, exporter, Path(folder))) for exporter in EXPORTERS},
        "torch-pruning": theirs(name),
    }
    report([record | circumstances()])


def ours(path: Path) -> dict[str, Any]:
    """The shares of parameters and MACs that are kept, and how exact the compact model is."""
    result = cut(onnx.load(path), Target(uniform=_RATIO))
    check = result.verify()
    return {**result.kept, "difference": check.max_relative_difference, "moved": check.moved}


def theirs(name: str) -> dict[str, Any]:
    """The same of torch-pruning; why not, where it fails, and whether its result runs."""
    module, image = module_of(name)
    full = pruner.parameters(module), pruner.macs(module, image)
    try:
        with pruner.limited(pruner.LIMIT):
            pruner.prune(module, image, _RATIO)
        with torch.no_grad():
            module.eval()(image)
    except Exception as problem:  # whatever goes wrong in another's code is the result
        return {"refused": pruner.why(problem)}
    return {"params": pruner.parameters(module) / full[0], "macs": pruner.macs(module, image) / full[1]}


if __name__ == "__main__":
    main()
