"""The files of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnx_asgnas.errors import RunDirectoryError
from onnx_asgnas.graph import write_atomically
from onnx_asgnas.report.finite import finite
from onnx_asgnas.report.markdown import markdown
from onnx_asgnas.report.run_page import run_page
from onnx_asgnas.report.run_report import FORMAT, RunReport

JSON, MARKDOWN, PAGE = "report.json", "report.md", "report.html"


def write_report(run_dir: Path, facts: RunReport) -> None:
    """Write report.json, report.md and report.html into a run directory, each whole or not at all.

    Raises OutputError where the folder cannot be written to.
    """
    text = json.dumps(finite(facts.to_dict()), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(run_dir / JSON, text.encode())
    write_atomically(run_dir / MARKDOWN, markdown(facts).encode())
    write_atomically(run_dir / PAGE, run_page(facts).encode())


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
