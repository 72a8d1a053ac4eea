"""Inference of a network: onnxruntime on the converted and on a compact model against the source framework's own.

Each contender is a process of its own, so that frameworks from several environments can be timed in turn.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
import onnx

from benchmarks.frameworks.contenders import FRAMEWORKS, Files, Framework, Network
from benchmarks.frameworks.inference import MARK
from benchmarks.peers.records import CHECKOUT
from onnx_asgnas.converters import environments
from onnx_asgnas.pruning import cut

BATCHES = (1, 32)
RUNTIME, COMPACT = "onnxruntime", "onnxruntime, compact"
OWN: Mapping[str, Mapping[str, tuple[str, str | None, str]]] = {
    "PyTorch": {
        "eager": ("torch-eager", None, ""),
        "torch.compile": ("torch-compiled", None, ""),
    },
    "Keras": {
        "call, on torch": ("keras-call", "keras", "torch"),
        "predict, on torch": ("keras-predict", "keras", "torch"),
        "call, on TensorFlow": ("keras-call", "tensorflow", "tensorflow"),
        "predict, on TensorFlow": ("keras-predict", "tensorflow", "tensorflow"),
        "tf.function with XLA, on TensorFlow": ("keras-xla", "tensorflow", "tensorflow"),
    },
    "Flax": {
        "eager": ("flax-eager", "jax", ""),
        "jax.jit": ("flax-compiled", "jax", ""),
    },
}
"""Each framework's ways to run a network: what inference.py calls it, the environment, and Keras' backend."""
_RUNS, _FEWEST = 5, 5
_SAME = 1e-3
"""How far, relative to the largest output, a contender may be off."""


@dataclass(slots=True)
class Contender:
    """A process that runs a network when it is asked to."""

    process: subprocess.Popen[str]
    log: IO[str]

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *problem: object) -> None:
        with self.log, suppress(BrokenPipeError), self.process:
            pass  # its input ends, and with it the process

    def ask(self, batch: int, runs: int) -> dict[str, Any]:
        """The seconds of some runs of a batch; raises RuntimeError, with its last words, where the process ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"batch": batch, "runs": runs}) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return found
        self.log.seek(0)
        raise RuntimeError("a contender ended: " + self.log.read().strip().splitlines()[-1])


def run(files: Files, network: Network, framework: Framework, seconds: float) -> dict[str, Any]:
    """Milliseconds of every contender, and its time over onnxruntime's in the same round, at each batch."""
    model, weights = files.model(network, framework, 0), files.weights(network, 0)
    compact = model.with_name(f"{model.stem}-compact.onnx")
    onnx.save(cut(onnx.load(model), network.target, mode=network.mode).compact, compact)
    with ExitStack() as stack:
        contenders = {
            RUNTIME: stack.enter_context(_start("onnxruntime", None, "", network, model)),
            COMPACT: stack.enter_context(_start("onnxruntime", None, "", network, compact)),
            **{name: stack.enter_context(_start(*how, network, weights)) for name, how in OWN[framework.name].items()},
        }
        return {"batches": {str(batch): _measured(contenders, batch, seconds) for batch in BATCHES}}


def _start(kind: str, environment: str | None, backend: str, network: Network, file: Path) -> Contender:
    place = FRAMEWORKS["PyTorch"].python
    if environment is not None:
        place = environments.require(environment, f"{kind}: needs its packages").python
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    one |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1") | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with its Contender)
    process = subprocess.Popen(
        [str(place), "-m", "benchmarks.frameworks.inference", kind, network.name, str(file), str(network.width)],
        cwd=CHECKOUT,
        env={**os.environ, **one, **({"KERAS_BACKEND": backend} if backend else {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    return Contender(process, log)


def _measured(contenders: Mapping[str, Contender], batch: int, seconds: float) -> dict[str, Any]:
    """Rounds in random order for so many seconds a contender."""
    outputs = {name: np.array(contender.ask(batch, 0)["outputs"]) for name, contender in contenders.items()}
    _must_agree(outputs)
    shuffle, order = random.Random(0).shuffle, list(contenders)
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.monotonic() + seconds * len(contenders)
    while len(rounds[RUNTIME]) < _FEWEST or time.monotonic() < end:
        shuffle(order)
        for name in order:
            rounds[name].append(median(contenders[name].ask(batch, _RUNS)["seconds"]))
    return {
        name: {
            "milliseconds": round(median(times) * 1e3, 4),
            "p95": round(float(np.percentile(times, 95)) * 1e3, 4),
            "ratio": round(median(mine / its for mine, its in zip(times, rounds[RUNTIME], strict=True)), 3),
            "rounds": len(times),
        }
        for name, times in rounds.items()
    }


def _must_agree(outputs: Mapping[str, Any]) -> None:
    """Raise RuntimeError where a contender does not compute the same network."""
    expected = outputs[RUNTIME]
    for name, found in outputs.items():
        if name != COMPACT and not np.abs(found - expected).max() <= _SAME * np.abs(expected).max():
            raise RuntimeError(f"{name} gives other outputs than onnxruntime")
