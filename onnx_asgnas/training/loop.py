"""The training loop: steps, epochs, events, checkpoints; any torch optimiser, H2SPG or not."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from onnx_asgnas.errors import InputError, NonFiniteError
from onnx_asgnas.space import Selection
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.checkpoint import Checkpoints
from onnx_asgnas.training.data import Batch, Dataset, Split
from onnx_asgnas.training.data.prefetch import prefetched
from onnx_asgnas.training.distributed import ALONE, Processes
from onnx_asgnas.training.events import Event, Timing
from onnx_asgnas.training.gradients import Parts
from onnx_asgnas.training.h2spg import H2SPG, Phase
from onnx_asgnas.training.interrupts import deferred_interrupts
from onnx_asgnas.training.losses import Objective
from onnx_asgnas.training.metrics import Evaluation, evaluate, evaluation_batch
from onnx_asgnas.training.narrowing import Narrowed
from onnx_asgnas.training.schedules import LearningRate

__all__ = ["Event", "Loop", "Rebuild", "Timing", "loss_probe", "steps_of"]

_PROBE_BATCHES, _PROBE_BATCH = 4, 256
_PROBE_TRAINING_BATCHES = 8
"""A batch of the probe is at most so many of training: nothing is kept for gradients."""
_PROBE_EPOCH = 2**31 - 1
"""An epoch that no run reaches: its order gives the batches that a measured score looks at."""
CHECKPOINT_SECONDS = 60.0
_EVENT_SECONDS = 0.1
_SAMPLES = 100
"""About so many points the curves of a run have."""

Rebuild = Callable[[OnnxModule, Selection], Narrowed | None]
"""What makes the compact network of a module and a selection whose groups are at zero; None where it cannot."""


def steps_of(dataset: Dataset, batch_size: int, epochs: int) -> int:
    """How many optimiser steps a run has."""
    return dataset.train.steps(batch_size, shuffle=True) * epochs


def loss_probe(
    module: OnnxModule,
    split: Split,
    loss: Objective,
    seed: int,
    processes: Processes = ALONE,
    *,
    training_batch: int = _PROBE_BATCH,
    samples: int = _PROBE_BATCHES * _PROBE_BATCH,
) -> Callable[[], float]:
    """What a measured score calls: the mean loss on a few fixed training batches, forward only.

    Batch normalisation takes the batches' own statistics, since the running ones are those of the network before
    anything was removed. Several processes share the batches. `training_batch` is what fits in memory with gradients,
    and so a batch may be smaller than its part of `samples`; there are four at most.
    """
    batches: list[Batch] = []
    size = min(_PROBE_BATCH, _PROBE_TRAINING_BATCHES * training_batch, samples)
    count = min(_PROBE_BATCHES, -(-samples // size))

    def measure() -> float:
        if not batches:
            batches.extend(islice(split.batches(size, shuffle=True, seed=seed, epoch=_PROBE_EPOCH), count))
        losses = torch.zeros(len(batches), dtype=torch.float64)
        with torch.no_grad():
            for place in processes.mine(range(len(batches))):
                inputs, targets = batches[place]
                losses[place] = float(loss.hard(module(**inputs), inputs, targets))
        (losses,) = processes.add([losses])
        return float(losses.sum()) / len(batches)

    return measure


@dataclass(slots=True)
class Loop:
    """Trains a module for a number of epochs, from the start or from a checkpoint.

    With the same seed, threads and engine a run that was interrupted and resumed gives the same bits as one that was
    not: the order of the data depends on seed and epoch alone, everything else is in the checkpoint. The generators of
    random numbers of torch, numpy and Python start anew with each epoch, for data sources that draw from them.

    Once all chosen groups of an H2SPG are at zero, `rebuild` makes the compact network, and the rest of the training
    runs on that, at its cost. `module` has its weights again when the run ends, and in every checkpoint.

    Events of the kind "sample" hold the norms of the groups `watched` (their places in the search space).

    The test data are evaluated after every `test_every`-th epoch, and after the last.

    `micro_batch` and `processes` are explained at `Parts`. All processes call `run`; the first one keeps checkpoints.
    """

    module: OnnxModule
    optimizer: torch.optim.Optimizer
    dataset: Dataset
    loss: Objective
    epochs: int
    batch_size: int
    schedule: LearningRate = field(default_factory=LearningRate)
    metrics: str = ""
    test_every: int = 1
    clip_grad_norm: float | None = None
    seed: int = 0
    on_event: Callable[[Event], None] = lambda event: None
    checkpoints: Checkpoints | None = None
    checkpoint_every: float = CHECKPOINT_SECONDS
    rebuild: Rebuild | None = None
    micro_batch: int | None = None
    processes: Processes = ALONE
    watched: Sequence[int] = ()
    history: list[Event] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    _steps_per_epoch: int = field(init=False)
    _base_lr: float = field(init=False)
    _last_phase: str = field(init=False)
    _parts: Parts = field(init=False)
    _narrowed: Narrowed | None = None
    _step: int = 0
    _loss_sum: float = 0.0
    _seconds: float = 0.0
    _saved_at: float = 0.0
    _told_at: float = 0.0

    def __post_init__(self) -> None:
        self._steps_per_epoch = self.dataset.train.steps(self.batch_size, shuffle=True)
        self._base_lr = float(self.optimizer.param_groups[0]["lr"])
        self._last_phase = self._phase()
        self._parts = Parts(micro_batch=self.micro_batch, processes=self.processes)
        if self.batch_size < self.processes.count:
            raise InputError(
                f"a batch of {self.batch_size} cannot be shared among {self.processes.count} processes",
                fix="Give a larger --batch-size.",
            )

    @property
    def total_steps(self) -> int:
        """How many optimiser steps the whole run has."""
        return self._steps_per_epoch * self.epochs

    @property
    def working(self) -> OnnxModule:
        """The network that trains: the whole one, or in the last phase the compact one."""
        return self.module if self._narrowed is None else self._narrowed.module

    def run(self) -> list[Event]:
        """Train to the end; gives the event of each epoch.

        Raises NonFiniteError, naming the step, when the loss or a weight is no number; the last checkpoint is then from
        before. Ctrl-C or SIGTERM lets the step finish, saves the state, and then raises KeyboardInterrupt; a second one
        acts at once.
        """
        self._restore()
        started = time.monotonic() - self._seconds
        self._saved_at = time.monotonic()
        first, stop = self._step // self._steps_per_epoch, False
        self.on_event(self._event("start", min(first, self.epochs - 1)))
        if self._step == 0:
            self._sample(0)
        with deferred_interrupts() as interrupted:
            for epoch in range(first, self.epochs):
                with self._batches(epoch) as batches:
                    for batch in batches:
                        stop = self._one_step(batch, interrupted)
                        self._seconds = time.monotonic() - started
                        self._after_step(epoch)
                        if stop or self._step == (epoch + 1) * self._steps_per_epoch:
                            break
                if self._step == (epoch + 1) * self._steps_per_epoch:
                    self._end_epoch(epoch)
                self._seconds = time.monotonic() - started
                self._save()
                if stop:
                    raise KeyboardInterrupt
        self._widen()
        return self.history

    @contextmanager
    def _batches(self, epoch: int) -> Iterator[Iterator[Batch]]:
        """The batches of an epoch that are still to come, made ahead of their use."""
        _start_random_numbers(self.seed, epoch)
        done = self._step - epoch * self._steps_per_epoch
        batches = self.dataset.train.batches(self.batch_size, shuffle=True, seed=self.seed, epoch=epoch)
        with prefetched(islice(batches, done, None)) as ready:
            yield self._timed(ready)

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        asked = time.perf_counter()
        for batch in batches:
            self.timing.data += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def _one_step(self, batch: Batch, interrupted: Callable[[], bool]) -> bool:
        """One step of the optimiser; whether the training is to stop behind it."""
        self._set_lr()
        module = self.working.train()
        value, stop = self._parts.gradients(module, self.loss, batch, self.timing, stop=interrupted())
        if not math.isfinite(value):
            raise self._not_finite(f"the loss is {value}")
        began = time.perf_counter()
        if self.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        self._step += 1
        self._loss_sum += value
        self.timing.optimizer += time.perf_counter() - began
        return stop or (interrupted() and not self.processes.several)

    def _after_step(self, epoch: int) -> None:
        now = time.monotonic()
        phase = self._phase()
        if phase != self._last_phase:
            self._last_phase = phase
            if phase == Phase.HYBRID.value:
                self._must_agree()
            self.on_event(self._event("phase", epoch))
        self._narrow()
        if self._step % max(1, self.total_steps // _SAMPLES) == 0:
            self._sample(epoch)
        if now - self._told_at > _EVENT_SECONDS:
            self._told_at = now
            self.on_event(self._event("step", epoch))
        at_end = self._step == (epoch + 1) * self._steps_per_epoch  # where the state is saved anyway
        if self.processes.first and not at_end and now - self._saved_at > self.checkpoint_every:
            self._save()

    def _end_epoch(self, epoch: int) -> None:
        self._must_agree()
        test, found = self.dataset.test, None
        if test is not None and ((epoch + 1) % self.test_every == 0 or epoch + 1 == self.epochs):
            found = evaluate(self.working, test, self.loss, self.metrics, evaluation_batch(self.batch_size))
        event = self._event("epoch", epoch, found)
        self.history.append(event)
        self._loss_sum = 0.0
        self.on_event(event)

    def _sample(self, epoch: int) -> None:
        """Tell of the curves, and the norms of the groups that are watched, to four digits."""
        if not self.processes.first:
            return
        norms = None
        if self.watched and isinstance(self.optimizer, H2SPG):
            if self._narrowed is not None:
                self._narrowed.write_back()
            norms = tuple(float(f"{norm:.4g}") for norm in self.optimizer.group_norms()[list(self.watched)])
        self.on_event(replace(self._event("sample", epoch), norms=norms))

    def _must_agree(self) -> None:
        self.processes.must_agree(f"the weights after step {self._step}", self.working.flat)

    def _narrow(self) -> None:
        """Train the compact network from here on, if there is one and something is left to do."""
        optimizer = self.optimizer
        if self.rebuild is None or self._step >= self.total_steps:
            return
        if isinstance(optimizer, H2SPG) and optimizer.phase is Phase.CONVERGE and optimizer.selection is not None:
            self.module.zero_grad(set_to_none=True)
            self._narrowed = self.rebuild(self.module, optimizer.selection)
            self.rebuild = None
            if self._narrowed is not None:
                optimizer.narrow(self._narrowed)

    def _widen(self) -> None:
        if self._narrowed is not None:
            self._narrowed.write_back()
            self._narrowed = None
            assert isinstance(self.optimizer, H2SPG)
            self.optimizer.widen()

    def _event(self, kind: str, epoch: int, found: Evaluation | None = None) -> Event:
        in_epoch = max(1, self._step - epoch * self._steps_per_epoch)
        optimizer = self.optimizer
        chosen = optimizer.selection.chosen if isinstance(optimizer, H2SPG) and optimizer.selection else ()
        if found is None and kind != "epoch":
            found = next(filter(None, map(Evaluation.of, reversed(self.history))), None)
        return Event(
            kind=kind,
            step=self._step,
            total_steps=self.total_steps,
            epoch=epoch + 1,
            epochs=self.epochs,
            phase=self._phase(),
            loss=self._loss_sum / in_epoch,
            accuracy=found.accuracy if found else None,
            metrics=found.metrics if found else {},
            test_loss=found.loss if found else None,
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
        if not bool(torch.isfinite(self.working.flat).all()):
            raise self._not_finite("a weight is not a finite number")
        if self.checkpoints is None or not self.processes.first:
            return
        if self._narrowed is not None:
            self._narrowed.write_back()
        state = {
            "step": self._step,
            "loss_sum": self._loss_sum,
            "seconds": self._seconds,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [event.to_dict() for event in self.history],
        }
        self.checkpoints.save(self._step, state)
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        state = self.checkpoints.newest() if self.checkpoints is not None else None
        if state is not None:
            self._step, self._loss_sum, self._seconds = state["step"], state["loss_sum"], state["seconds"]
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._last_phase = self._phase()
            self.history[:] = [Event(**event) for event in state["history"]]
        self.processes.must_agree(f"the weights at step {self._step}", self.module.flat)
        self._narrow()

    def _not_finite(self, what: str) -> NonFiniteError:
        return NonFiniteError(
            f"{what} at step {self._step + 1} of {self.total_steps}",
            fix="Lower --lr, or look for extreme values in the data. The last good checkpoint is kept.",
            step=self._step + 1,
        )


def _start_random_numbers(seed: int, epoch: int) -> None:
    number = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002  (the generator that the user's own code may draw from)
    random.seed(number)
