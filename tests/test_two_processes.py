"""Two processes train as one does with the same global batch, and end in order when one of them dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_asgnas as nas
from tests.made_up import images, network

STEPS = 50
OPTIONS = ["--keep-macs", "0.6", "--mode", "joint", "--freeze-bn", "--batch-size", "16", "--epochs", "10"]
OPTIONS += ["--lr", "0.005", "--threads", "1", "--data"]


def started(*arguments: str, dying: int | None = None) -> list[subprocess.Popen[str]]:
    """Two processes as torchrun starts them; `dying` is the step after which the second one kills itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    shared |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [[sys.executable, "-m", "onnx_asgnas"]] * 2
    if dying is not None:
        command[1] = [sys.executable, "-c", DYING, str(dying)]
    return [
        subprocess.Popen(
            [*command[rank], "search", *arguments],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]


DYING = """
import os, signal, sys
from onnx_asgnas.training.loop import Loop
from onnx_asgnas.cli import main
last = int(sys.argv.pop(1))
after = Loop._after_step
def dying(self, epoch):
    after(self, epoch)
    if self._step == last:
        os.kill(os.getpid(), signal.SIGKILL)
Loop._after_step = dying
sys.exit(main())
"""


def weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.data_type == 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    options = {"mode": "joint", "freeze_bn": True, "batch_size": 16, "epochs": 10, "lr": 0.005, "threads": 1}
    target = nas.Target(keep_macs=0.6)
    data = images(folder, STEPS // 10 * 16)
    return nas.search(network(folder), data, target, run_dir=folder / "one", **options).run_dir


def same(one: Path, two: Path) -> None:
    """One selection, and the same weights."""
    facts = [json.loads((run / "training.json").read_text(encoding="utf-8")) for run in (one, two)]
    assert facts[0]["history"][-1]["step"] == facts[1]["history"][-1]["step"] == STEPS
    assert [e["tensor"] for e in facts[0]["chosen"]] == [e["tensor"] for e in facts[1]["chosen"]]
    assert facts[0]["channels"] == facts[1]["channels"]
    first, second = weights(one / "trained.onnx"), weights(two / "trained.onnx")
    scale = max(np.abs(value).max() for value in first.values())
    for name, value in first.items():
        assert np.abs(value - second[name]).max() <= 1e-5 * scale, name


def test_two_processes_train_as_one_also_when_one_dies_on_the_way(folder: Path, alone: Path) -> None:
    run = folder / "two"
    told = [str(folder / "stackedunets.onnx"), *OPTIONS, f"npz:{folder / 'images.npz'}", "-o", str(run)]
    first, second = started(*told, dying=22)
    _, said = first.communicate(timeout=120)
    second.communicate(timeout=120)
    assert second.returncode == -9
    assert first.returncode == 2
    assert "another process of this training has ended" in said
    assert "--resume" in said
    assert not (run / "trained.onnx").exists()

    for rank, process in enumerate(started(str(run), "--resume")):
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert bool(out) == (rank == 0)
    same(alone, run)
