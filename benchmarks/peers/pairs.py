"""Timing of several contenders in turn, in rounds of random order: what the machine does meanwhile hits all alike."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.peers.records import CHECKOUT

_MARK = "result: "
"""Before the line of JSON in which a process says what it found: libraries print too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds of one contender: of the clock, and of the processor, in the order of the rounds."""

    clock: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median by the clock."""
        return median(self.clock)

    def ratio(self, other: Times) -> float:
        """How many times faster this one is: the median of the other's time over this one's in the same round."""
        return median(theirs / mine for mine, theirs in zip(self.clock, other.clock, strict=True))

    def cpu_ratio(self, other: Times) -> float:
        """The same in seconds of the processor: the figure to look at while the machine is busy."""
        return median(theirs / mine for mine, theirs in zip(self.processor, other.processor, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "median": round(self.median, 4),
            "least": round(min(self.clock), 4),
            "cpu": round(median(self.processor), 4),
            "runs": len(self.clock),
        }


Contender = tuple[Callable[[], Any], Callable[[Any], object]]
"""What is made ready outside of the time, and what is timed with it."""


def in_turn(contenders: Mapping[str, Contender], rounds: int, seed: int = 0) -> dict[str, Times]:
    """Run each contender once to warm up, then once per round in an order drawn anew, garbage collected before."""
    shuffle = random.Random(seed).shuffle
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        order = list(contenders)
        shuffle(order)
        for name in order:
            seconds = _timed(contenders[name])
            if round_number:
                rows[name].append(seconds)
    return {
        name: Times(clock=tuple(clock for clock, _ in found), processor=tuple(processor for _, processor in found))
        for name, found in rows.items()
    }


def _timed(contender: Contender) -> tuple[float, float]:
    prepare, run = contender
    ready = prepare()
    gc.collect()
    clock, processor = time.perf_counter(), time.process_time()
    result = run(ready)
    seconds = time.perf_counter() - clock, time.process_time() - processor
    del result
    return seconds


def in_own_process(module: str, *arguments: str) -> list[dict[str, Any]]:
    """The records that a module reports when it runs in a process of its own, with one thread; raises if it fails."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **one},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [line.removeprefix(_MARK) for line in done.stdout.splitlines() if line.startswith(_MARK)]
    records: list[dict[str, Any]] = json.loads(found[-1])
    return records


def report(records: Sequence[dict[str, Any]]) -> None:
    """What was found, said to the process that started it."""
    print(_MARK + json.dumps(list(records)), flush=True)
