"""The coverage sweep: every model of a corpus is cut in every mode, and what comes out is checked independently.

    python benchmarks/coverage.py CORPUS_DIR [--only PATTERN] [--mode MODE] [--jobs 1] [--newest PYTHON] [--docs FILE]

CORPUS_DIR holds ONNX files, and the index.json of tools/corpus/export.py if that made them. Results are kept in
CORPUS_DIR/coverage.jsonl by model file, version of the code and case, so that a sweep that was stopped goes on. Checked
is, with nothing of the package's own verify: compact gives what the zeroed model gives (relative difference at most
1e-5, at two sizes of each open dimension, in onnxruntime without optimisation); inputs and outputs are the same; the
zeroed model is the source with zeros; the file is valid, and runs in the newest onnxruntime (--newest: the Python of an
environment that has it); construct on the result removes nothing. A model of which no dense layer became smaller, or
whose outputs say nothing, does not count as passed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[0] = str(_CHECKOUT)  # in place of this script's folder, in which a module has the name of a package

from benchmarks.corpus_sweep import report  # noqa: E402
from benchmarks.corpus_sweep.cases import MODES, Case, Results, cases_for, code_version  # noqa: E402
from benchmarks.corpus_sweep.worker import MARK  # noqa: E402

_BYTES_OF_A_FLOAT = 4


class Sweep:
    """The models of one corpus, their results, and how they are made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.code = code_version()
        self.results = Results(options.corpus / "coverage.jsonl")
        self.index = read_index(options.corpus)
        self._lock = threading.Lock()

    def files(self) -> Iterator[Path]:
        """The files to sweep, the small ones first; a file is complete once the index names it."""
        known = {r["file"] for r in self.index if r["file"]}
        files = [self.options.corpus / name for name in known] if self.index else self.options.corpus.glob("*.onnx")
        for path in sorted(files, key=lambda p: (p.stat().st_size if p.exists() else 0, p.name)):
            if path.exists() and fnmatch.fnmatch(path.name, f"*{self.options.only}*"):
                yield path

    def run(self) -> None:
        """Sweep what has no result yet."""
        with ThreadPoolExecutor(self.options.jobs) as pool:
            list(pool.map(self._sweep_file, self.files()))

    def _sweep_file(self, path: Path) -> None:
        about = next((r for r in self.index if r["file"] == path.name), {})
        parameters = about.get("parameters") or path.stat().st_size // _BYTES_OF_A_FLOAT
        with self._lock:
            file_hash = self.results.hash_of(path)
        cases = [
            case
            for case in cases_for(parameters, tuple(self.options.mode or MODES))
            if (self.options.fraction is None or case.fraction == self.options.fraction)
            and not self.results.find(file_hash, self.code, case, older=self.options.older)
        ]
        if not cases:
            return
        known = {"hash": file_hash, "code": self.code, "file": path.name}
        worker = Worker(self.options)
        missing = {str(case): case for case in cases}
        for record in worker.records(path, cases, about.get("inputs") or {}):
            missing.pop(str(case_of(record)), None)
            self._keep(known | record)
        for case in missing.values():
            self._keep(known | asdict(case) | {"status": "crashed", "reason": worker.ended})

    def _keep(self, record: dict[str, Any]) -> None:
        with self._lock:
            self.results.add(record)
            case = case_of(record)
            kept = record.get("kept", {}).get("params", float("nan"))
            difference, took = record.get("difference", float("nan")), sum(record.get("seconds", {}).values())
            numbers = f"kept {kept:6.1%} differs {difference:8.2g} {took:6.1f} s"
            print(f"{record['status']:8} {record['file']:48} {case!s:22} {numbers}  {record['reason']}", flush=True)


class Worker:
    """The process that sweeps one model; `ended` says how it ended."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ended = ""

    def records(self, path: Path, cases: list[Case], traced: dict[str, list[int]]) -> Iterator[dict[str, Any]]:
        """The records as they come; the process is ended when it takes too long."""
        job = {"file": str(path), "cases": [asdict(case) for case in cases], "traced": traced}
        job |= {"threads": self.options.threads, "newest": self.options.newest}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.corpus_sweep.worker"],
            cwd=_CHECKOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(self.options.threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        limit = threading.Timer(self.options.limit, process.kill)
        limit.start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            for line in process.stdout:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
        finally:
            code = process.wait()
            late = limit.finished.is_set()
            limit.cancel()
            self.ended = f"took more than {self.options.limit:g} s" if late else f"the process ended with {code}"


def case_of(record: dict[str, Any]) -> Case:
    """The case that a record is of."""
    return Case(mode=record["mode"], fraction=record["fraction"], criterion=record["criterion"])


def read_index(corpus: Path) -> list[dict[str, Any]]:
    """What the export says of its files; nothing for a folder of other files."""
    path = corpus / "index.json"
    index: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return index


def plan_of(corpus: Path) -> dict[str, int]:
    """How many exports the corpus plans, by family; nothing for a folder of other files."""
    path = corpus / "planned.json"
    plan: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    return plan


def main() -> None:
    """Sweep, then write the document."""
    options = _options()
    sweep = Sweep(options)
    if not options.report:
        sweep.run()
    if options.docs:
        options.docs.write_text(
            report.document(list(sweep.results.latest()), sweep.index, sweep.code, plan_of(options.corpus))
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--only", default="", help="a pattern within the names of files")
    parser.add_argument("--mode", choices=MODES, action="append", help="one of the modes; else all")
    parser.add_argument("--fraction", type=float, help="one of the fractions; else all")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for each model")
    parser.add_argument("--newest", help="the Python of an environment with the newest onnxruntime")
    parser.add_argument(
        "--older", action="store_true", help="do not repeat what passed with an earlier version of the code"
    )
    parser.add_argument("--report", action="store_true", help="only write the document")
    parser.add_argument("--docs", type=Path, help="the document to write, docs/coverage.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
