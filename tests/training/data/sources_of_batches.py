"""Callables for the tests of `python:`; the tests run in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

Pair = tuple[dict[str, Any], Any]


def batch(size: int, seed: int = 0) -> Pair:
    generator = np.random.default_rng(seed)
    return {"x": generator.standard_normal((size, 3)).astype(np.float32)}, np.arange(size) % 2


def generator(batches: int = 3) -> Iterator[Pair]:
    for step in range(batches):
        yield batch(4, step)


def listed() -> list[Pair]:
    return [batch(4), batch(2)]


calls: list[dict[str, object]] = []


def informed(split: str, batch_size: int, shuffle: bool, seed: int, epoch: int, scale: float = 1.0) -> Iterator[Pair]:
    calls.append({"split": split, "batch_size": batch_size, "shuffle": shuffle, "seed": seed, "epoch": epoch})
    inputs, target = batch(batch_size, seed + epoch)
    yield {"x": torch.from_numpy(inputs["x"]) * scale}, torch.from_numpy(target)


class Counting:
    """An iterable that may be run through again, and counts how often it is made."""

    made = 0

    def __init__(self) -> None:
        Counting.made += 1

    def __iter__(self) -> Iterator[Pair]:
        return iter([batch(4), batch(4)])


class Unsized(Counting):
    """As a DataLoader over a stream: it has a length that refuses."""

    def __len__(self) -> int:
        raise TypeError("no length")


def nothing() -> list[Pair]:
    return []


def broken() -> Iterator[Pair]:
    yield batch(4)
    raise RuntimeError("disk gone")


def broken_at_once() -> list[Pair]:
    raise RuntimeError("no files")


def late_nan() -> list[Pair]:
    bad = batch(4)
    bad[0]["x"][1, 2] = np.nan
    return [batch(4), bad]


def samples() -> list[Pair]:
    inputs, target = batch(1)
    return [({"x": inputs["x"][0]}, target[0])]


def tensors() -> list[Any]:
    return [torch.zeros(4, 3)]


def wrong_labels() -> list[Pair]:
    return [(batch(4)[0], np.array([0, 1, 2, 9]))]


def not_iterable() -> int:
    return 3


number = 3
