"""Batches made ahead, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from onnx_asgnas.training.data.prefetch import prefetched


def test_items_come_in_order_and_are_made_elsewhere() -> None:
    made_in: list[str] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made_in.append(threading.current_thread().name)
            yield number

    with prefetched(items()) as ready:
        assert list(ready) == list(range(20))
    assert set(made_in) == {"batches"}


def test_the_next_item_is_made_while_one_is_used() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    with prefetched(items()) as ready:
        assert next(ready) == 1
        assert second.wait(10)


def test_an_exception_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second one is bad")

    with prefetched(items()) as ready:
        assert next(ready) == 1
        with pytest.raises(ValueError, match="the second one is bad"):
            next(ready)


@pytest.mark.parametrize("taken", [0, 1])
def test_who_stops_early_leaves_no_thread_and_closes_the_source(taken: int) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with prefetched(items()) as ready:
        for _ in range(taken):
            next(ready)
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]
