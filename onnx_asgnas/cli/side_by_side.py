"""Several runs of experiments at once: each is a process of its own that calls the command line for that one run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_asgnas.errors import InputError

if TYPE_CHECKING:
    from onnx_asgnas.experiments import Run, Runner

_LOOK_EVERY = 0.2
"""Seconds."""


def side_by_side(missing: list[Run], runner: Runner, source: str | None, jobs: int) -> Iterator[dict[str, Any]]:
    """Do these runs, `jobs` at a time, each after what it needs; gives the line of each as it finishes.

    `source` is the experiment's name or file; without it each run's own name is taken. What a run says is in
    `NAME.log` in the runner's folder. Raises InputError when one fails; the others then stop, as at Ctrl-C, after their
    step, and the same call goes on from there.
    """
    runner.folder.mkdir(parents=True, exist_ok=True)
    waiting = list(missing)
    running: list[tuple[Run, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            busy = [*waiting, *(run for run, _ in running)]
            ready = [run for run in waiting if run.needs not in busy]
            for run in ready[: jobs - len(running)]:
                running.append((run, _begin(run, runner, source)))
                waiting.remove(run)
            ended = [(run, process) for run, process in running if process.poll() is not None]
            for run, process in ended:
                running.remove((run, process))
                if process.returncode != 0:
                    raise _failed(run, process.returncode, _log(run, runner))
                yield runner.finished()[run.name]
            if not ended:
                time.sleep(_LOOK_EVERY)
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()


def _begin(run: Run, runner: Runner, source: str | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "onnx_asgnas", "experiment", source or run.experiment.name]
    command += ["--only", escape(run.name), "--threads", str(runner.threads or 1)]
    command += ["--output", str(runner.folder), "--results", str(runner.results)]
    command += [] if runner.data_dir is None else ["--data-dir", runner.data_dir]
    with _log(run, runner).open("wb") as log:
        # In a session of its own: Ctrl-C is passed on once, and a second one would stop it in the middle of a step.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _log(run: Run, runner: Runner) -> Path:
    folder = runner.place(run).path
    return folder.with_name(f"{folder.name}.log")


def _failed(run: Run, code: int, log: Path) -> InputError:
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    why = errors[-1] if errors else f"its process ended with code {code}"
    return InputError(f"{run.name} failed: {why}", fix=f"{log} says more; the same command goes on.", run=run.name)
