"""The two files of a report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from onnx_asgnas.errors import RunDirectoryError
from onnx_asgnas.graph import write_atomically
from onnx_asgnas.report.markdown import markdown
from onnx_asgnas.report.run_report import FORMAT, RunReport

JSON, MARKDOWN = "report.json", "report.md"


def write_report(run_dir: Path, facts: RunReport) -> None:
    """Write report.json and report.md into a run directory, each whole or not at all.

    Raises OutputError where the folder cannot be written to.
    """
    text = json.dumps(_finite(facts.to_dict()), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(run_dir / JSON, text.encode())
    write_atomically(run_dir / MARKDOWN, markdown(facts).encode())


def read_report(run_dir: Path) -> dict[str, Any]:
    """What report.json of a run directory holds; raises RunDirectoryError where there is none that can be read."""
    path = run_dir / JSON
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{run_dir} has no {JSON}", fix=f"Finish the run: onnx-asgnas search {run_dir} --resume.", path=str(run_dir)
        ) from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}", fix="Write it again.", path=str(path)) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise RunDirectoryError(f"{path} is no report of this version", fix="Write it again.", path=str(path))
    return facts


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
