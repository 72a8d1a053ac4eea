"""The results of the comparisons: one JSON object a line, with what made it; the last of a kind counts."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDS = CHECKOUT / "docs" / "pruning.jsonl"
_PACKAGES = ("onnx", "onnxruntime", "onnxsim", "torch", "torch-pruning", "torchvision", "numpy", "scipy")
_KEY = ("kind", "model", "exporter", "threads", "mode", "operators")


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a record is about; two of one key are two measurements of the same thing."""
    return tuple(record.get(name) for name in _KEY)


def read(path: Path = RECORDS) -> list[dict[str, Any]]:
    """The last record of each key, in the order in which the keys came first."""
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            record: dict[str, Any] = json.loads(line)
            latest[key_of(record)] = record
    return list(latest.values())


def keep(records: list[dict[str, Any]], path: Path = RECORDS) -> None:
    """Put new records into the file, in place of older ones of the same key."""
    latest = {key_of(record): record for record in [*read(path), *records]}
    temporary = path.with_suffix(".new")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in latest.values()), encoding="utf-8")
    temporary.replace(path)


def circumstances() -> dict[str, Any]:
    """What made a result: versions, commit, processor, and how busy the machine was just before."""
    return {
        "commit": commit(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def commit() -> str:
    """The commit of the code, with a + where it was changed since; "" outside of a checkout."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """The name of the processor; Linux only says it here."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
