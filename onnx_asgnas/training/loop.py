"""The training loop: steps, epochs, events, checkpoints; any torch optimiser, H2SPG or not."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from types import FrameType
from typing import Any

import torch

from onnx_asgnas.errors import NonFiniteError
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import Batch, Dataset, Split, Targets
from onnx_asgnas.training.h2spg import H2SPG
from onnx_asgnas.training.losses import Objective
from onnx_asgnas.training.metrics import Evaluation, evaluate
from onnx_asgnas.training.schedules import LearningRate

_PROBE_BATCHES, _PROBE_BATCH = 4, 256
_PROBE_EPOCH = 2**31 - 1
"""An epoch that no run reaches: its order gives the batches that a measured score looks at."""
_CHECKPOINT_SECONDS = 60.0
_EVENT_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened in training; `kind` is "step", "epoch", "phase" or "end".

    `loss` is the mean over the epoch so far (a step) or the whole epoch. `accuracy` is the fraction right on the test
    data, None until the first epoch's end and where targets are no labels; `metrics` are all figures on it by name.
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

    def to_dict(self) -> dict[str, Any]:
        """The event as plain data."""
        return asdict(self)


@dataclass(slots=True)
class Timing:
    """Seconds that the steps of this process spent waiting for data, and in each part of the work.

    `forward` holds the loss, `optimizer` the selection with its evaluations.
    """

    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0


def steps_of(dataset: Dataset, batch_size: int, epochs: int) -> int:
    """How many optimiser steps a run has."""
    return dataset.train.steps(batch_size, shuffle=True) * epochs


def loss_probe(module: OnnxModule, split: Split, loss: Objective, seed: int) -> Callable[[], float]:
    """What a measured score calls: the mean loss on a few fixed training batches, forward only.

    Batch normalisation takes the batches' own statistics, since the running ones are those of the network before
    anything was removed.
    """
    batches: list[Batch] = []

    def measure() -> float:
        if not batches:
            batches.extend(
                islice(split.batches(_PROBE_BATCH, shuffle=True, seed=seed, epoch=_PROBE_EPOCH), _PROBE_BATCHES)
            )
        with torch.no_grad():
            losses = [float(loss.hard(module(**inputs), inputs, target)) for inputs, target in batches]
        return sum(losses) / len(losses)

    return measure


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Keep the first Ctrl-C until the step is done, since in its middle statistics and weights do not belong together.

    Gives a function that says whether there was one. Where another thread than the main one trains, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(slots=True)
class Loop:
    """Trains a module for a number of epochs, from the start or from a checkpoint.

    With the same seed, threads and engine a run that was interrupted and resumed gives the same bits as one that was
    not: the order of the data depends on seed and epoch alone, everything else is in the checkpoint.
    """

    module: OnnxModule
    optimizer: torch.optim.Optimizer
    dataset: Dataset
    loss: Objective
    epochs: int
    batch_size: int
    schedule: LearningRate = field(default_factory=LearningRate)
    metrics: str = ""
    clip_grad_norm: float | None = None
    seed: int = 0
    on_event: Callable[[Event], None] = lambda event: None
    checkpoints: Checkpoints | None = None
    history: list[Event] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    _steps_per_epoch: int = field(init=False)
    _base_lr: float = field(init=False)
    _last_phase: str = field(init=False)
    _step: int = 0
    _loss_sum: float = 0.0
    _seconds: float = 0.0
    _saved_at: float = 0.0
    _told_at: float = 0.0

    def __post_init__(self) -> None:
        self._steps_per_epoch = self.dataset.train.steps(self.batch_size, shuffle=True)
        self._base_lr = float(self.optimizer.param_groups[0]["lr"])
        self._last_phase = self._phase()

    @property
    def total_steps(self) -> int:
        """How many optimiser steps the whole run has."""
        return self._steps_per_epoch * self.epochs

    def run(self) -> list[Event]:
        """Train to the end; gives the event of each epoch.

        Raises NonFiniteError, naming the step, when the loss or a weight is no number; the last checkpoint is then from
        before. Ctrl-C lets the step finish, saves the state, and then raises KeyboardInterrupt; a second one raises it
        at once.
        """
        self._restore()
        started = time.monotonic() - self._seconds
        self._saved_at = time.monotonic()
        self.module.train()
        with _deferred_interrupt() as interrupted:
            for epoch in range(self._step // self._steps_per_epoch, self.epochs):
                for inputs, target in self._batches(epoch):
                    self._one_step(inputs, target)
                    self._seconds = time.monotonic() - started
                    self._after_step(epoch)
                    if interrupted():
                        self._save()
                        raise KeyboardInterrupt
                self._end_epoch(epoch)
                self._seconds = time.monotonic() - started
                self._save()
        return self.history

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch that are still to come."""
        done = self._step - epoch * self._steps_per_epoch
        batches = self.dataset.train.batches(self.batch_size, shuffle=True, seed=self.seed, epoch=epoch)
        asked = time.perf_counter()
        for batch in islice(batches, done, None):
            self.timing.data += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def _one_step(self, inputs: dict[str, torch.Tensor], target: Targets) -> None:
        clock = time.perf_counter
        self._set_lr()
        t0 = clock()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.module(**inputs), inputs, target)
        t1 = clock()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._not_finite(f"the loss is {value}")
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_grad_norm)
        t2 = clock()
        self.optimizer.step()
        t3 = clock()
        self._step += 1
        self._loss_sum += value
        self.timing.forward += t1 - t0
        self.timing.backward += t2 - t1
        self.timing.optimizer += t3 - t2

    def _after_step(self, epoch: int) -> None:
        now = time.monotonic()
        phase = self._phase()
        if phase != self._last_phase:
            self._last_phase = phase
            self.on_event(self._event("phase", epoch))
        if now - self._told_at > _EVENT_SECONDS:
            self._told_at = now
            self.on_event(self._event("step", epoch))
        if now - self._saved_at > _CHECKPOINT_SECONDS:
            self._save()

    def _end_epoch(self, epoch: int) -> None:
        test = self.dataset.test
        found = evaluate(self.module, test, self.loss, self.metrics) if test is not None else None
        event = self._event("epoch", epoch, found)
        self.history.append(event)
        self._loss_sum = 0.0
        self.on_event(event)

    def _event(self, kind: str, epoch: int, found: Evaluation | None = None) -> Event:
        in_epoch = max(1, self._step - epoch * self._steps_per_epoch)
        optimizer = self.optimizer
        chosen = optimizer.selection.chosen if isinstance(optimizer, H2SPG) and optimizer.selection else ()
        last = self.history[-1] if self.history else None
        return Event(
            kind=kind,
            step=self._step,
            total_steps=self.total_steps,
            epoch=epoch + 1,
            epochs=self.epochs,
            phase=self._phase(),
            loss=self._loss_sum / in_epoch,
            accuracy=found.accuracy if found else (last.accuracy if last else None),
            metrics=found.metrics if found else (last.metrics if last else {}),
            test_loss=found.loss if found else (last.test_loss if last else None),
            groups_at_zero=optimizer.groups_at_zero if isinstance(optimizer, H2SPG) else 0,
            groups_chosen=len(chosen),
            lr=float(optimizer.param_groups[0]["lr"]),
            seconds=self._seconds,
        )

    def _phase(self) -> str:
        return self.optimizer.phase.value if isinstance(self.optimizer, H2SPG) else "training"

    def _set_lr(self) -> None:
        """Give every parameter group the learning rate of this step."""
        factor = self.schedule(self._step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self._base_lr * factor

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        if not bool(torch.isfinite(self.module.flat).all()):
            raise self._not_finite("a weight is not a finite number")
        state = {
            "step": self._step,
            "loss_sum": self._loss_sum,
            "seconds": self._seconds,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [event.to_dict() for event in self.history],
            "random": torch.get_rng_state(),
        }
        self.checkpoints.save(self._step, state)
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        state = self.checkpoints.newest() if self.checkpoints is not None else None
        if state is None:
            return
        self._step, self._loss_sum, self._seconds = state["step"], state["loss_sum"], state["seconds"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._last_phase = self._phase()
        self.history[:] = [Event(**event) for event in state["history"]]
        torch.set_rng_state(state["random"])

    def _not_finite(self, what: str) -> NonFiniteError:
        return NonFiniteError(
            f"{what} at step {self._step + 1} of {self.total_steps}",
            fix="Lower --lr, or look for extreme values in the data. The last good checkpoint is kept.",
            step=self._step + 1,
        )
