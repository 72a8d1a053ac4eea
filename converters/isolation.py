"""A conversion in a process of its own: by the interpreter of an environment, under a time limit, its log in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from onnx_asgnas.converters.export import Export, Source, source_to_json
from onnx_asgnas.errors import ConversionError

TIME_LIMIT = 1800.0
"""Seconds that a conversion in a process of its own may take, where nothing else is said."""

_WORKER = Path(__file__).with_name("worker.py")


def run(
    target: str, source: Source, *, python: Path | None, time_limit: float | None = None, log: Path | None = None
) -> Export:
    """What the converter `target` (module:function) gives, run by another interpreter (None: by this one again).

    Raises the ConversionError that the converter raises, and one when it ends without a word or takes too long.
    """
    seconds = time_limit or TIME_LIMIT
    with tempfile.TemporaryDirectory(prefix="onnx-asgnas-") as name:
        folder = Path(name)
        found = [path for path in sys.path if path] if python is None else []
        job = {"target": target, "source": source_to_json(source), "path": [os.getcwd(), *found]}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        written = folder / "log.txt"
        try:
            with written.open("w", encoding="utf-8") as file:
                done = subprocess.run(
                    [str(python or sys.executable), str(_WORKER), str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                    check=False,
                    env=_surroundings(),
                )
        except subprocess.TimeoutExpired:
            raise ConversionError(
                f"the conversion is not done after {seconds:g} seconds, and was stopped",
                fix=f"Allow it more: --time-limit {2 * seconds:g}.{_kept(written, log)}",
            ) from None
        error = folder / "error.json"
        if error.is_file():
            told = json.loads(error.read_text(encoding="utf-8"))
            fix = told["fix"] + (_kept(written, log) if told["of_exporter"] else "")
            raise ConversionError(told["message"], fix=fix, **told["fields"])
        if done.returncode:
            raise ConversionError(
                f"the converter's process ended with {done.returncode}: {_last_line(written)}",
                fix=f"Is its environment whole? `onnx-asgnas env create` makes it anew.{_kept(written, log)}",
            )
        return Export.read(folder)


def _surroundings() -> dict[str, str]:
    """The environment variables of the process, without those that would let it find this one's packages."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"PYTHONUTF8": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def _kept(written: Path, log: Path | None) -> str:
    if log is None or not written.stat().st_size:
        return ""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(written.read_bytes())
    return f" The full log: {log}"


def _last_line(written: Path) -> str:
    lines = written.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]
