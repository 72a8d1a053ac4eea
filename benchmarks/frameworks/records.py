"""docs/frameworks.jsonl: one JSON object a line, one line for each measurement that is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.frameworks.contenders import RECORDS
from benchmarks.peers.records import circumstances
from onnx_asgnas.converters import environments
from onnx_asgnas.runs import versions

Record = dict[str, Any]
_KEY = ("kind", "network", "framework", "seed", "threads")


def key_of(record: Record) -> tuple[Any, ...]:
    """What a record is about; of two with one key the later one counts."""
    return tuple(record.get(name) for name in _KEY)


def read(path: Path = RECORDS) -> list[Record]:
    """The last record of each key, in the order in which the keys came first."""
    latest: dict[tuple[Any, ...], Record] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            record: Record = json.loads(line)
            latest[key_of(record)] = record
    return list(latest.values())


def keep(record: Record, path: Path = RECORDS) -> None:
    """Append a record, with what made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record | {"around": around()}) + "\n")


def around() -> Record:
    """What made a record: versions here and in the environments of the frameworks, and how busy the machine was."""
    pinned = {name: environments.find(name).packages for name in ("keras", "jax", "tensorflow")}
    packages = {name: [line.partition("#")[0].strip() for line in lines] for name, lines in pinned.items()}
    return circumstances() | {"versions": versions(), "environments": packages}
