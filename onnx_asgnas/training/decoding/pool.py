"""Worker processes that decode batches ahead of the step that needs them."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec

from onnx_asgnas.errors import DataError, PackageError
from onnx_asgnas.training.decoding.jobs import Answer, Job


def default_workers() -> int:
    """One for every core but the one that trains, at least one and at most eight."""
    return max(1, min(8, (os.cpu_count() or 1) - 1))


class DecodingPool:
    """Some worker processes, started when the first batch is asked for; they end with this object."""

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._finalizer = weakref.finalize(self, _end, self._processes)

    def decode(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        """The answers in the order of the jobs, some of which are worked on while one is waited for."""
        threads = self._start()
        ahead: deque[Future[Answer]] = deque()
        try:
            for job in jobs:
                ahead.append(threads.submit(_ask_one, self._idle, job))
                if len(ahead) > self._count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """End the processes; asked again, the pool starts new ones."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        _end(self._processes)
        self._processes.clear()
        self._idle, self._threads = queue.SimpleQueue(), None

    def _start(self) -> ThreadPoolExecutor:
        if self._threads is None:
            if find_spec("PIL") is None:
                raise PackageError(
                    "image files are decoded by Pillow, which is not installed",
                    fix="pip install 'onnx-asgnas[images]'.",
                )
            command = [sys.executable, "-m", "onnx_asgnas.training.decoding.worker"]
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            for _ in range(self._count):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                )
                self._processes.append(process)
                self._idle.put(process)
            self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="decoding")
        return self._threads


def _ask_one(idle: queue.SimpleQueue[subprocess.Popen[bytes]], job: Job) -> Answer:
    """Give the job to a process that has nothing to do: there are as many as threads."""
    process = idle.get()
    try:
        assert process.stdin is not None and process.stdout is not None
        pickle.dump(job, process.stdin, protocol=5)
        process.stdin.flush()
        answer: Answer = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        code = process.poll()
        raise DataError(
            f"a process that decodes images has ended{f' with code {code}' if code is not None else ''}",
            fix="It may have run out of memory: ask for fewer, as in ?workers=1.",
        ) from error
    finally:
        idle.put(process)
    return answer


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Close the pipes, which ends them."""
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it has ended already
                    continue
        process.wait()
