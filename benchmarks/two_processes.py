"""One process against two (torchrun, Gloo) with the same global batch: selection, weights, wall-clock.

Batch normalisation is left in inference form, since otherwise each process has statistics of its own. The data are made
up: images whose brightness tells their label.

    python benchmarks/two_processes.py --steps 50
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas.converters import convert
from onnx_asgnas.graph import save_model

LAUNCH = {
    1: [sys.executable, "-m", "onnx_asgnas"],
    2: [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "onnx_asgnas"],
}


def made_up_images(path: Path, count: int) -> None:
    """A data file."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, count)
    pixels = random.standard_normal((count, 1, 28, 28)) + labels[:, None, None, None]
    np.savez(path, input=pixels.astype(np.float32), label=labels)


def weights(path: Path) -> dict[str, np.ndarray]:
    """The float tensors of a model by name."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.data_type == 1}


def chosen(run: Path) -> object:
    """What a run removed."""
    facts = json.loads((run / "training.json").read_text(encoding="utf-8"))
    return [entry["tensor"] for entry in facts["chosen"]], facts["channels"]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", default="models:stackedunets?width=8", help="what convert takes")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mode", default="joint")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    epochs = 5
    runs, seconds = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(convert(arguments.source), folder / "model.onnx")
        made_up_images(folder / "images.npz", arguments.batch * arguments.steps // epochs)
        for count, launch in LAUNCH.items():
            runs[count] = folder / f"{count}"
            began = time.monotonic()
            data = ("--data", f"npz:{folder / 'images.npz'}", "--batch-size", str(arguments.batch), "--freeze-bn")
            goal = ("--keep-macs", "0.5", "--mode", arguments.mode, "--epochs", str(epochs), "--lr", "0.003")
            engine = ("--threads", "1", "--engine", arguments.engine)
            subprocess.run(
                [*launch, "search", str(folder / "model.onnx"), *data, *goal, *engine, "-o", str(runs[count])],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            facts = json.loads((runs[count] / "training.json").read_text(encoding="utf-8"))
            seconds[count] = facts["seconds"]
            parts = "  ".join(f"{part} {value:.2f}" for part, value in facts["timing"].items())
            whole = time.monotonic() - began
            print(f"{count} process(es): training {seconds[count]:.2f} s ({parts}), the whole search {whole:.1f} s")
        one, two = (weights(runs[count] / "trained.onnx") for count in (1, 2))
        scale = max(float(np.abs(value).max()) for value in one.values())
        difference = max(float(np.abs(one[name] - two[name]).max()) for name in one)
        print(f"same selection: {chosen(runs[1]) == chosen(runs[2])}")
        print(f"weights after {arguments.steps} steps: largest difference {difference:.1e}, largest weight {scale:.2f}")
        print(f"wall-clock of the training, two against one: {seconds[2] / seconds[1]:.2f}")


if __name__ == "__main__":
    main()
