"""What `export --to torch` writes for published networks: lines, classes, the difference from onnxruntime, and ruff.

    python benchmarks/export_torch.py MODELS [--only PATTERN] [--cut] [--keep FOLDER]

MODELS is the folder of exported networks, NAME.EXPORTER.onnx. With `--cut` each is pruned at `--uniform 0.5` first. A
row is printed as soon as it is measured; the exit code is 1 where one fails.
"""

from __future__ import annotations

import argparse
import fnmatch
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from onnx_asgnas import Target, prune
from onnx_asgnas.errors import AsgnasError
from onnx_asgnas.export import export_torch
from onnx_asgnas.graph import load_model

NETWORKS = (
    "resnet50",
    "mobilenet_v2",
    "densenet121",
    "efficientnet_b0",
    "regnet_x_400mf",
    "vit_b_16",
    "swin_t",
    "convnext_tiny",
    "hf_bert",
    "hf_gpt2",
    "hf_llama_grouped_queries",
    "hf_t5",
)
EXPORTERS = ("torchscript", "dynamo")
COLUMNS = (
    "network",
    "exporter",
    "lines",
    "classes",
    "difference",
    "in float32",
    "ruff check",
    "ruff format",
    "seconds",
)


def main() -> int:
    """One row for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the folder of exported networks")
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--cut", action="store_true", help="prune at --uniform 0.5 first")
    parser.add_argument("--keep", type=Path, help="a folder for what is written")
    options = parser.parse_args()
    failed = False
    print(f"| {' | '.join(COLUMNS)} |\n|---|---|{'---:|' * 4}---|---|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for name in fnmatch.filter(NETWORKS, options.only):
            for exporter in EXPORTERS:
                cells, passed = row(options.models / f"{name}.{exporter}.onnx", folder, options.cut)
                failed |= not passed
                print(f"| {name} | {exporter} | {' | '.join(cells)} |", flush=True)
    return int(failed)


def row(model: Path, folder: Path, cut: bool) -> tuple[list[str], bool]:
    """The cells of a file, and whether it passes: equal outputs, and code that ruff has nothing to say about."""
    code = folder / f"{model.stem.replace('.', '_')}.py"
    source = prune(model, target=Target(uniform=0.5)) if cut else load_model(model)
    start = time.perf_counter()
    try:
        written = export_torch(source, code)
    except AsgnasError as error:
        return [f"{type(error).__name__}: {error.message}", *[""] * 6], False
    seconds = time.perf_counter() - start
    judged = [passes("check", code), passes("format", "--check", code)]
    agreement = written.agreement
    cells = [str(written.lines), str(written.classes), f"{agreement.largest:.1e}", f"{agreement.rounded:.1e}"]
    return [*cells, *("passes" if each else "FAILS" for each in judged), f"{seconds:.1f}"], all(judged)


def passes(*arguments: str | Path) -> bool:
    """Does ruff with its default settings pass."""
    command = [sys.executable, "-m", "ruff", *map(str, arguments), "--isolated", "--quiet"]
    return subprocess.run(command, capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
