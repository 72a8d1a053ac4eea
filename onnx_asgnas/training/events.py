"""What training tells of: events, the file that keeps them, and where the time goes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnx_asgnas.errors import OutputError
from onnx_asgnas.graph import write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened in training; `kind` is "start", "step", "sample", "epoch" or "phase".

    A "start" comes first, with the step that training goes on from. A "sample" is a point of the curves of a run, which
    are evenly spread over it, with the norms of the groups that are watched. `loss` is the mean over the epoch so far
    (a step or sample) or the whole epoch. `accuracy` is the fraction right on the test data, None until they are first
    evaluated, in an epoch without that, and where targets are no labels; `metrics` are all figures on them by name.
    """

    kind: str
    step: int
    total_steps: int
    epoch: int
    epochs: int
    phase: str
    loss: float
    accuracy: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    test_loss: float | None = None
    groups_at_zero: int = 0
    groups_chosen: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    norms: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The event as plain data; `norms` only where there are some."""
        facts = asdict(self)
        if self.norms is None:
            del facts["norms"]
        return facts


@dataclass(slots=True)
class Timing:
    """Seconds that the steps of this process spent waiting for data, and in each part of the work.

    `forward` holds the loss, `optimizer` the selection with its evaluations, `exchange` the waiting for the other
    processes.
    """

    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    exchange: float = 0.0
    optimizer: float = 0.0


class EventLog:
    """A file of the epochs, phases and samples of a run, one JSON object a line; a listener that passes every event on.

    Each line of an epoch or phase is on the disk before training goes on. When a run goes on from a checkpoint, lines
    about what came after it are taken out: so there is every event once, however often the run stopped.
    """

    def __init__(self, path: Path, then: Callable[[Event], None] | None = None) -> None:
        self._path = path
        self._then = then

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        if event.kind == "start":
            self._forget_after(event.step)
        elif event.kind != "step":
            line = json.dumps({"time": round(time.time(), 3), **event.to_dict()}) + "\n"
            self._append(line, to_disk=event.kind != "sample")
        if self._then is not None:
            self._then(event)

    def _append(self, line: str, *, to_disk: bool) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                if to_disk:
                    os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self._path} cannot be written: {error.strerror}",
                fix="Free some space, then go on with --resume.",
                path=str(self._path),
            ) from None

    def _forget_after(self, step: int) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step] if step else []
        if kept != lines:
            write_atomically(self._path, b"".join(kept))


def _step_of(line: bytes) -> float:
    """The step that a line tells of; a line that was cut off while it was written tells of none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events that a file keeps; none where there is no file, and without a line that was cut off."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if math.isfinite(_step_of(line))]
