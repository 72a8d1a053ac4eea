"""Batches made in a thread of their own, so that a step does not wait for its data."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

_AHEAD = 2
"""How many batches may lie ready. One hides what a batch takes; the second, that some take longer."""


@contextmanager
def prefetched(items: Iterable[T], *, ahead: int = _AHEAD) -> Iterator[Iterator[T]]:
    """The items, which a thread gets while the one before is used; an exception comes where the item would have.

    At the end of the context the thread stops, whether all items were taken or not, and `items` is closed.
    """
    producer = _Producer(items, ahead)
    try:
        yield producer.results()
    finally:
        producer.stop()


class _Producer(Generic[T]):
    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._items = items
        self._ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="batches", daemon=True)
        self._thread.start()

    def results(self) -> Iterator[T]:
        while True:
            kind, value = self._ready.get()
            if kind == "end":
                return
            if kind == "failed":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # it may wait to put an item down
            try:
                self._ready.get(timeout=0.01)
            except queue.Empty:
                continue

    def _produce(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                self._ready.put(("item", item))
                if self._stopped.is_set():
                    return
            self._ready.put(("end", None))
        except BaseException as failure:  # it is the consumer's
            self._ready.put(("failed", failure))
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
