"""The parts of the comparison one after another, each measurement a record as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frameworks import records
from benchmarks.frameworks.contenders import CONTROL, FRAMEWORKS, NETWORKS, SEEDS, Files, Framework, Network
from benchmarks.frameworks.records import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is measured, and where files and results lie."""

    folder: Path
    records: Path
    networks: tuple[str, ...] = tuple(NETWORKS)
    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)
    again: bool = False
    seconds: float = 20.0


Task = tuple[Record, Callable[[], Record]]
"""The key of a record, and what measures the rest of it."""


def measure(part: str, options: Options) -> None:
    """Measure what is missing of a part."""
    done = {records.key_of(record) for record in records.read(options.records)}
    for key, work in _TASKS[part](options, Files(options.folder)):
        if options.again or records.key_of(key) not in done:
            print(*key.values(), end=": ", flush=True)
            found = work()
            records.keep(key | found, options.records)
            print(", ".join(f"{name} {value}" for name, value in found.items() if not isinstance(value, list | dict)))


def _pairs(options: Options) -> Iterator[tuple[Network, Framework]]:
    for network in options.networks:
        for framework in options.frameworks:
            yield NETWORKS[network], FRAMEWORKS[framework]


def _conversions(options: Options, files: Files) -> Iterator[Task]:
    from benchmarks.frameworks import conversions

    for network, framework in _pairs(options):
        key = {"kind": "conversion", "network": network.name, "framework": framework.name}
        yield key, lambda n=network, f=framework: conversions.run(files, n, f)  # type: ignore[misc]


def _losses(options: Options, files: Files) -> Iterator[Task]:
    from benchmarks.frameworks import losses

    for name in options.networks:
        key = {"kind": "losses", "network": name}
        yield key, lambda n=NETWORKS[name]: losses.run(files, n, options.frameworks)  # type: ignore[misc]


def _choices(options: Options, files: Files) -> Iterator[Task]:
    from benchmarks.frameworks import choices

    for name in options.networks:
        key = {"kind": "choice", "network": name}
        yield key, lambda n=NETWORKS[name]: choices.run(files, n, options.frameworks)  # type: ignore[misc]


def _latencies(options: Options, files: Files) -> Iterator[Task]:
    from benchmarks.frameworks import latency

    for network, framework in _pairs(options):
        key = {"kind": "latency", "network": network.name, "framework": framework.name, "threads": 1}
        yield key, lambda n=network, f=framework: latency.run(files, n, f, options.seconds)  # type: ignore[misc]


def _searches(options: Options, files: Files) -> Iterator[Task]:
    from benchmarks.frameworks import searches

    for seed in SEEDS:
        for name in options.networks:
            for contender in (*options.frameworks, CONTROL):
                key = {"kind": "search", "network": name, "framework": contender, "seed": seed}
                yield key, lambda n=NETWORKS[name], c=contender, s=seed: searches.run(files, n, c, s)  # type: ignore[misc]


_TASKS: dict[str, Callable[[Options, Files], Iterator[Task]]] = {
    "conversion": _conversions,
    "losses": _losses,
    "choice": _choices,
    "latency": _latencies,
    "search": _searches,
}
PARTS = tuple(_TASKS)
