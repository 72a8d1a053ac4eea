"""What is tried on each model, and where the results are kept."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MODES = ("prune", "joint", "erase")
_SMALL = 30_000_000
_PACKAGE = Path(__file__).parents[2] / "onnx_asgnas"
_NOT_ON_THE_WAY = frozenset(
    {
        "__init__.py",
        "__main__.py",
        "cli",
        "evaluation",
        "experiments",
        "export",
        "finetuning.py",
        "pipeline.py",
        "report",
        "runs.py",
        "training",
    }
)
"""Parts of the package that a removal does not run through."""
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One removal: how, how much, and by which choice."""

    mode: str
    fraction: float
    criterion: str

    def __str__(self) -> str:
        return f"{self.mode} {self.fraction:g} {self.criterion}"


def cases_for(parameters: int, modes: tuple[str, ...]) -> list[Case]:
    """Three fractions by two choices for models of up to 30 M parameters, half at random once for larger ones."""
    small = parameters <= _SMALL
    kinds = [(f, c) for f in (0.5, 0.25, 0.75) for c in ("random", "magnitude")] if small else [(0.5, "random")]
    return [Case(mode=mode, fraction=f, criterion=c) for mode in modes for f, c in kinds]


def code_version(package: Path = _PACKAGE) -> str:
    """A hash of the code that a removal runs through, without its comments, docstrings and layout."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in _NOT_ON_THE_WAY:
            digest.update(f"{path.relative_to(package)} {_code(path)}".encode())
    return digest.hexdigest()[:16]


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return ast.dump(tree)


class Results:
    """The records of a sweep, one JSON object a line; the last one of a model file, code version and case counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[tuple[str, ...], dict[str, Any]] = {}
        self._hashes: dict[str, str] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self.records[_key(record)] = record

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, on disk at once."""
        self.records[_key(record)] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def find(self, file_hash: str, code: str, case: Case, *, older: bool = False) -> dict[str, Any] | None:
        """The record of a case; with `older` one of an earlier version of the code too, if it passed then."""
        found = self.records.get((file_hash, code, *map(str, asdict(case).values())))
        if found is None and older:
            wanted = (file_hash, *map(str, asdict(case).values()))
            alike = [r for key, r in self.records.items() if (key[0], *key[2:]) == wanted and r["status"] == "passed"]
            return alike[-1] if alike else None
        return found

    def latest(self) -> Iterator[dict[str, Any]]:
        """The newest record of each model file and case, whatever the version of the code."""
        newest: dict[tuple[str, ...], dict[str, Any]] = {}
        for key, record in self.records.items():
            place = (record["file"], *key[2:])
            newest.pop(place, None)
            newest[place] = record
        yield from newest.values()

    def hash_of(self, path: Path) -> str:
        """The SHA-256 of a file and of the weights beside it, remembered by size and time of change."""
        parts = [p for p in (path, path.with_name(path.name + ".data")) if p.exists()]
        stamp = ";".join(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in parts)
        kept = self.path.with_suffix(".hashes.json")
        if not self._hashes and kept.exists():
            self._hashes = json.loads(kept.read_text())
        if stamp not in self._hashes:
            self._hashes[stamp] = _digest(parts)
            kept.write_text(json.dumps(self._hashes))
        return self._hashes[stamp]


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    return digest.hexdigest()[:16]


def _key(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(record[name]) for name in ("hash", "code", "mode", "fraction", "criterion"))
