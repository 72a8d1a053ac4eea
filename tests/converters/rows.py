"""Every row of the table of sources, in its environment: converted, compared, pruned by half, verified.

    python -m tests.converters.rows [ROW …]

Environments that are missing are named and skipped; `make converters` makes them first. The networks that files are
needed of are written by the environments' own interpreters.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import onnx

import onnx_asgnas as nas
from onnx_asgnas.converters import convert_with_report, environments
from onnx_asgnas.errors import AsgnasError, InputError
from onnx_asgnas.pruning import cut

SOURCES = Path(__file__).parent / "sources"
IMAGE = "image:float32[N,16,16,3]"

ROWS: dict[str, list[tuple[str, list[str]]]] = {
    "torch": [
        ("torch:torch_nets:ResNet", ["image:float32[N,3,16,16]"]),
        ("torchvision:resnet18", []),
        ("torchvision:mobilenet_v2", []),
        ("timm:resnet18", []),
        ("timm:convnext_atto", []),
        ("timm:vit_tiny_patch16_224", []),
    ],
    "hf": [("hf:{files}/bert", []), ("hf:{files}/gpt2", []), ("hf:{files}/vit", [])],
    "keras": [
        ("keras:keras_nets:residual", []),
        ("keras:keras_nets:two_inputs", []),
        ("keras:keras_nets:mobilenet", []),
    ],
    "sklearn": [
        ("sklearn:sklearn_nets:mlp", []),
        ("sklearn:sklearn_nets:scaled", []),
        ("sklearn:sklearn_nets:linear", []),
    ],
    "jax": [
        ("jax:jax_nets:Residual", [IMAGE]),
        ("jax:jax_nets:mnist", ["x:float32[N,28,28,1]"]),
        ("jax:jax_nets:perceptron", ["x:float32[N,12]"]),
        ("jax:jax_nets:plain", ["x:float32[N,6]"]),
    ],
    "tensorflow": [
        ("saved_model:{files}/mobilenet", []),
        ("tflite:{files}/mobilenet.tflite", []),
        ("saved_model:{files}/residual", []),
    ],
    "paddle": [("paddle:{files}/resnet18", []), ("paddle:{files}/mobilenet_v2", []), ("paddle:{files}/lenet", [])],
}
WRITERS = {
    "hf": ("torch", "write_huggingface.py"),
    "tensorflow": ("tensorflow", "write_tensorflow.py"),
    "paddle": ("paddle", "write_paddle.py"),
}


def main() -> int:
    """Try the rows; the exit code is 1 when one fails."""
    wanted = sys.argv[1:] or list(ROWS)
    os.chdir(SOURCES)
    failed = 0
    with tempfile.TemporaryDirectory() as files:
        for row in wanted:
            _write(row, files)
            for source, inputs in ROWS[row]:
                outcome, good = _tried(source.format(files=files), inputs)
                print(f"{source:38} {outcome}", flush=True)
                failed += not good
    return int(failed > 0)


def _write(row: str, files: str) -> None:
    if row not in WRITERS:
        return
    name, script = WRITERS[row]
    environment = environments.require(name, f"the row {row}: needs its packages")
    subprocess.run([environment.python, SOURCES / script, files], check=True, capture_output=True)


def _tried(source: str, inputs: list[str]) -> tuple[str, bool]:
    start = time.perf_counter()
    try:
        found = convert_with_report(source, inputs=inputs)
        seconds = time.perf_counter() - start
        facts = [f"{seconds:5.1f} s", f"difference {found.max_relative_difference:.1e} at {found.batch_sizes}"]
        facts += [f"{found.folded} of {found.normalisations} BN folded"] if found.folded else []
        facts += [f"{len(found.names.lost)} names lost"] if found.names.lost else []
        return ", ".join([*facts, *_pruned(found.model)]), True
    except AsgnasError as problem:
        return f"FAILED: {problem.message}", False


def _pruned(model: onnx.ModelProto) -> Iterator[str]:
    try:
        pruned = cut(model, nas.Target(uniform=0.5))
    except InputError as refusal:
        yield f"refused: {refusal.message}"
        return
    found = pruned.verify()
    found.require()
    figures = f"{found.max_relative_difference:.1e} (moved {found.moved:.1e})"
    yield f"pruned to {pruned.kept['params']:.0%}, verified {figures}"


if __name__ == "__main__":
    sys.exit(main())
