"""Kills searches at random moments (SIGKILL), resumes them until they are done, and compares bits.

One search runs undisturbed. The others are told the same, are killed once or several times wherever they happen to be,
and resumed; their trained and compact models must be byte-equal to the first one's, and their event files must hold
the same events.

    python benchmarks/kill_test.py --runs 20
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from onnx_asgnas.converters import convert
from onnx_asgnas.graph import save_model

MODELS = ("trained.onnx", "compact.onnx")


@dataclass(frozen=True)
class Search:
    """A search from the command line, which can be started, resumed and killed."""

    model: Path
    options: tuple[str, ...]

    def command(self, run: Path) -> list[str]:
        """Start it, or go on where there is something to go on with."""
        begun = (run / "config.json").exists()
        if not begun:
            shutil.rmtree(run, ignore_errors=True)
        told = [str(run), "--resume"] if begun else [str(self.model), *self.options, "-o", str(run)]
        return [sys.executable, "-m", "onnx_asgnas", "search", *told]

    def perform(self, run: Path, *, kill_after: float | None = None) -> bool:
        """Whether it came to its end before it was killed; raises RuntimeError where it fails by itself."""
        process = subprocess.Popen(self.command(run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return False
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(process.args)} ended with {process.returncode}:\n{said}")  # type: ignore[arg-type]
        return True


def stage(run: Path) -> str:
    """Where a run was when it was killed."""
    if not (run / "config.json").exists():
        return "start"
    if (run / "compact.onnx").exists():
        return "verify and benchmark"
    if (run / "trained.onnx").exists():
        return "construct"
    phases = [event["phase"] for event in events(run)]
    saved = list((run / "checkpoints").glob("step-*"))
    writing = " (writing a checkpoint)" if (run / "checkpoints" / ".unfinished").exists() else ""
    return (phases[-1] if phases else "warm-up" if saved else "before the first checkpoint") + writing


def events(run: Path) -> list[dict[str, object]]:
    """The events of a run without the times, which no two runs share."""
    path = run / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{k: v for k, v in event.items() if k not in ("time", "seconds")} for event in whole]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", default="models:demosupnet?width=4", help="what convert takes")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--mode", default="joint")
    parser.add_argument("--variant", default="sgd")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        save_model(convert(arguments.source), model)
        options = (
            *("--data", "fashion-mnist-mini", "--keep-macs", "0.5", "--mode", arguments.mode),
            *("--engine", arguments.engine, "--variant", arguments.variant, "--epochs", str(arguments.epochs)),
            *("--select-at", "0.3", "--zero-at", "0.6", "--threads", "1", "--checkpoint-every", "0.3"),
        )
        search = Search(model, options)
        sys.exit(1 if compare(search, Path(folder), arguments.runs) else 0)


def compare(search: Search, folder: Path, runs: int) -> int:
    """Do it; the number of runs that ended with other bits."""
    started = time.monotonic()
    search.perform(folder / "whole")
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.1f} s")
    kills, stages, different = 0, Counter[str](), 0
    for number in range(runs):
        run = folder / "killed"
        shutil.rmtree(run, ignore_errors=True)
        while not search.perform(run, kill_after=random.uniform(0.2, 0.9) * seconds):
            kills += 1
            stages[stage(run)] += 1
        same = all((run / name).read_bytes() == (folder / "whole" / name).read_bytes() for name in MODELS)
        same = same and events(run) == events(folder / "whole")
        different += not same
        print(f"run {number + 1}: {'same bits' if same else 'DIFFERENT'}, {kills} kills so far", flush=True)
    print(f"{runs - different} of {runs} runs have the same bits after {kills} kills, of which in:")
    for name, count in stages.most_common():
        print(f"  {name}: {count}")
    return different


if __name__ == "__main__":
    main()
