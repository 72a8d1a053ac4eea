"""A search that is killed (SIGKILL) wherever it happens to be goes on to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_asgnas as nas
from tests.made_up import images, network

TOLD = {"mode": "joint", "epochs": 3, "batch_size": 16, "lr": 0.02, "threads": 1, "zero_at": 0.5, "checkpoint_every": 0}
"""Nine steps, of which the compact network takes the last four; the state is saved after each."""

KILLED = """
import os, signal, sys, json
import onnx_asgnas as nas
from onnx_asgnas import pipeline
from onnx_asgnas.training import checkpoint

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def listen(event):
    if where == "the last phase" and event.step >= 7:
        die()

write, written = checkpoint._write, []

def write_and_die(state, file):
    digest = write(state, file)
    written.append(digest)
    return die() if len(written) == 3 else digest

run, model, data, target, where, told = json.loads(sys.argv[1])
if where == "a checkpoint":
    checkpoint._write = write_and_die
if where == "construct":
    pipeline.construct = die
if os.path.exists(os.path.join(run, "config.json")):
    pipeline.resume(run, on_event=listen)
else:
    nas.search(model, data, nas.Target(keep_macs=target), run_dir=run, on_event=listen, **told)
"""


def killed(folder: Path, run: Path, where: str) -> int:
    told = [str(run), str(folder / "stackedunets.onnx"), f"npz:{folder / 'images.npz'}", 0.5, where, TOLD]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", KILLED, json.dumps(told)], env=environment, check=False).returncode


def events(run: Path) -> list[dict[str, object]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("time", "seconds")} for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    target = nas.Target(keep_macs=0.5)
    return nas.search(network(folder), images(folder), target, run_dir=folder / "whole", **TOLD).run_dir  # type: ignore[arg-type]


def test_a_search_killed_again_and_again_ends_with_the_same_bits(folder: Path, whole: Path) -> None:
    run = folder / "run"
    for where in ("a checkpoint", "the last phase", "construct"):
        assert killed(folder, run, where) == -9, where
    assert (run / "trained.onnx").exists()
    assert not (run / "compact.onnx").exists()
    nas.resume(run)
    for name in ("trained.onnx", "compact.onnx"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert events(run) == events(whole)
    assert not list((run / "checkpoints").glob(".*"))
