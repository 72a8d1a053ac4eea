"""Export the corpus: every network by both of torch's exporters, into a folder with an index.

    python -m tools.corpus.export FOLDER [--only PATTERN] [--exporter NAME] [--limit SECONDS] [--again]

What the index has is not exported again, failures included unless `--again` says so. The index, `index.json`, is a list
of objects: model, family, exporter, opset, file, bytes, parameters, status ("exported", "failed"), reason, seconds; of
exported ones also inputs (the shapes that were traced), attention, and moved (how far other inputs move the outputs).
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tools.corpus import export_one, light_models
from tools.corpus.entry import Entry, image
from tools.corpus.models import corpus

os.environ["HF_HUB_OFFLINE"] = "1"
EXPORTERS = ("torchscript", "dynamo")
_REASON_LENGTH = 300


def main() -> None:
    """Export what is missing, one network at a time."""
    options = _options()
    folder: Path = options.folder
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    index = Index(folder / "index.json")
    for name in light_models.names():
        if fnmatch.fnmatch(name, options.only) and not index.has(name, light_models.EXPORTER, failures=True):
            index.add(light(name, folder))
    plan = Counter(entry.family for entry in corpus() for _ in EXPORTERS)
    plan[light_models.FAMILY] = len([*light_models.names()])
    (folder / "planned.json").write_text(json.dumps(plan, indent=1) + "\n")
    _load_exporters()
    for entry in corpus():
        if not fnmatch.fnmatch(entry.name, options.only):
            continue
        for exporter in options.exporter or EXPORTERS:
            if not index.has(entry.name, exporter, failures=not options.again):
                record = export(entry, exporter, folder, options.limit)
                index.add(record)
                print(
                    f"{record['status']:9} {record['seconds']:6.1f} s  {entry.name} {exporter} {record['reason']}",
                    flush=True,
                )


class Index:
    """What became of each export, kept in one JSON file; a change replaces the file at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def has(self, model: str, exporter: str, *, failures: bool) -> bool:
        """Is this export done; failed ones count as done if `failures` says so."""
        done = ("exported", "failed") if failures else ("exported",)
        return any((r["model"], r["exporter"]) == (model, exporter) and r["status"] in done for r in self.records)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, in place of an earlier one of the same export."""
        key = (record["model"], record["exporter"])
        self.records = [r for r in self.records if (r["model"], r["exporter"]) != key] + [record]
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(self.records, indent=1) + "\n")
        temporary.replace(self.path)


def light(name: str, folder: Path) -> dict[str, Any]:
    """The record of a model that the onnx package ships."""
    file = folder / f"{name}.onnx"
    record = {"model": name, "family": light_models.FAMILY, "exporter": light_models.EXPORTER, "file": file.name}
    record |= light_models.write(name, file)
    return record | {"bytes": file.stat().st_size, "status": "exported", "reason": "", "seconds": 0.0}


def export(entry: Entry, exporter: str, folder: Path, limit: float) -> dict[str, Any]:
    """The record of one export, made in a process of its own that ends at the limit of time.

    The process is a copy of this one, in which the exporters are loaded already: that takes longer than most exports.
    """
    file = folder / f"{entry.name}.{exporter}.onnx"
    log = folder / "logs" / f"{entry.name}.{exporter}.txt"
    answer = folder / "logs" / "answer.json"
    answer.unlink(missing_ok=True)
    start = time.monotonic()
    process = multiprocessing.get_context("fork").Process(
        target=_export_here, args=(entry, exporter, file, log, answer)
    )
    process.start()
    process.join(limit)
    record: dict[str, Any] = {"model": entry.name, "family": entry.family, "exporter": exporter, "opset": None}
    record |= {"file": None, "bytes": None, "parameters": None, "status": "failed"}
    if process.is_alive():
        process.kill()
        process.join()
        record["reason"] = f"took more than {limit:g} s"
    elif not answer.exists():
        record["reason"] = _last_error(log.read_text()) or f"the process ended with {process.exitcode}"
    else:
        size = sum(f.stat().st_size for f in (file, file.with_name(file.name + ".data")) if f.exists())
        record |= json.loads(answer.read_text()) | {
            "file": file.name,
            "bytes": size,
            "status": "exported",
            "reason": "",
        }
    if record["status"] == "failed":
        file.unlink(missing_ok=True)
    return record | {"seconds": round(time.monotonic() - start, 1)}


def _export_here(entry: Entry, exporter: str, file: Path, log: Path, answer: Path) -> None:
    with log.open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    made = export_one.export(entry, exporter, file)
    answer.write_text(json.dumps(made))


def _load_exporters() -> None:
    """Export something small: that loads the exporters, in one thread, as copies of a process ask for."""
    torch.set_num_threads(1)
    tiny = Entry(
        name="tiny",
        family="torchvision",
        build=lambda _: torch.nn.Conv2d(3, 2, 1),
        example=image(4, name="input"),
        millions=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        for exporter in EXPORTERS:
            export_one.export(tiny, exporter, Path(folder, "tiny.onnx"))


def _last_error(log: str) -> str:
    """The line of a log that names the innermost cause, shortened; torch's exporter puts that under a heading."""
    lines = [line.strip() for line in log.splitlines() if line and not line[0].isspace()]
    causes = [line for line in lines if line.startswith("<class '")]
    errors = [line for line in lines if "Error" in line.split(":")[0] or "Exception" in line.split(":")[0]]
    return (causes or errors or lines or [""])[-1][:_REASON_LENGTH]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--exporter", choices=EXPORTERS, action="append", help="one of the two")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each export")
    parser.add_argument("--again", action="store_true", help="try again what failed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
