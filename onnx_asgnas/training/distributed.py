"""Several processes that train one network together, each on its part of every batch (torchrun starts them).

All have the same weights and take the same steps. What they exchange in a step is one vector: the sums of the gradients
and, in it, of what else has to agree. `DistributedDataParallel` would exchange gradients in pieces while others are
still computed; an engine gives all of them at once, at the end.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from onnx_asgnas.errors import InputError, TrainingError
from onnx_asgnas.training.data import Batch, samples_in

_TIMEOUT = timedelta(minutes=10)
_DIGEST = 8
_MOST_RANKS = 2**15

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """One process's view: its `rank` among `count`, of which the first, rank 0, writes files and speaks."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items, in turn with the others."""
        return items[self.rank :: self.count]

    def part(self, batch: Batch) -> Batch:
        """This process's rows of a batch; raises InputError where there are fewer rows than processes."""
        rows = samples_in(*batch)
        if rows < self.count:
            raise InputError(
                f"a batch of {rows} cannot be shared among {self.count} processes", fix="Give a larger --batch-size."
            )
        return rows_of(batch, rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def add(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums of these tensors over all processes: views of one vector. Alone, the tensors themselves."""
        if not self.several:
            return list(tensors)
        vector = torch.cat([tensor.detach().reshape(-1).to(tensors[0].dtype) for tensor in tensors])
        with _others_alive():
            distributed.all_reduce(vector)
        parts = torch.split(vector, [tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def as_first(self, tensor: Tensor) -> None:
        """Take over what the first process has in this tensor."""
        if self.several:
            with _others_alive():
                distributed.broadcast(tensor, 0)

    def must_agree(self, what: str, tensor: Tensor) -> None:
        """Raise TrainingError where not all processes have the same bits in a tensor."""
        if not self.several:
            return
        digest = hashlib.sha256(tensor.detach().contiguous().cpu().numpy().tobytes()).digest()[:_DIGEST]
        mine = torch.tensor(list(digest), dtype=torch.float32, device=tensor.device)
        least, most = mine.clone(), mine.clone()
        with _others_alive():
            distributed.all_reduce(least, distributed.ReduceOp.MIN)
            distributed.all_reduce(most, distributed.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise TrainingError(
                f"the {self.count} processes do not agree on {what}",
                fix="Give every process the same data, options and versions, on machines of one kind.",
                rank=self.rank,
            )


ALONE = Processes()


def rows_of(batch: Batch, start: int, end: int) -> Batch:
    """Some rows of a batch, as views."""
    inputs, targets = batch
    taken = {name: tensor[start:end] for name, tensor in inputs.items()}
    if isinstance(targets, Tensor):
        return taken, targets[start:end]
    return taken, {name: tensor[start:end] for name, tensor in targets.items()}


def started_processes() -> Processes:
    """What torchrun says in the environment; ALONE without it. Nothing is joined yet."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if not 0 <= rank < count <= _MOST_RANKS:
        raise InputError(f"RANK is {rank} and WORLD_SIZE is {count}", fix="Start the processes with torchrun.")
    return Processes(rank, count)


def own_device(device: str) -> str:
    """The device of this process: with plain `cuda`, each takes the one of its number on the machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and started_processes().several else device


@contextmanager
def joined(device: str = "cpu", *, timeout: timedelta = _TIMEOUT) -> Iterator[Processes]:
    """Join the processes that torchrun started, by NCCL on CUDA and Gloo elsewhere; ALONE where it started none."""
    processes = started_processes()
    if not processes.several:
        yield processes
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(own_device(device))
    with _others_alive():
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
    try:
        yield processes
    finally:
        distributed.destroy_process_group()


@contextmanager
def _others_alive() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch raises when a connection closes, or nothing comes in time
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"another process of this training has ended, or does not answer: {first}",
            fix="See what it said; then start all of them again with search RUN --resume, "
            "which goes on from the last checkpoint.",
        ) from error
