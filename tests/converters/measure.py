"""Every row of the table of sources, in its environment: converted, compared, pruned by half, verified.

    python -m tests.converters.measure [ROW …] [--docs docs/converting.md]

One line for each network; with --docs it is kept beside the page, as JSON, and the page's table is written anew from
all that are there. The exit code is 1 when a network cannot be converted, or its cut is not exact or changes nothing.
Environments that are missing are named; `make converters` makes them first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

import onnx_asgnas as nas
from onnx_asgnas.converters import Conversion, convert_with_report, environments
from onnx_asgnas.errors import AsgnasError, TargetError
from onnx_asgnas.pruning import cut
from tests.converters.rows import ROWS, Network, Row

SOURCES = Path(__file__).parent / "sources"
HEADING = "## Measured"
LEAST_MOVE = 1e-3
"""How far a cut must move the output, so that equal outputs of zeroed and compact model say something."""

Record = dict[str, Any]


def main() -> int:
    """Measure the rows that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--docs", type=Path, help="the page whose table is written, docs/converting.md")
    options = parser.parse_args()
    wanted = options.rows or list(ROWS)
    if unknown := set(wanted) - ROWS.keys():
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    docs = options.docs.resolve() if options.docs else None
    os.chdir(SOURCES)
    failed = 0
    for name in wanted:
        records = []
        for record in measured(name, ROWS[name]):
            print(line(record), flush=True)
            records.append(record)
        failed += sum(record["problem"] is not None for record in records)
        if docs is not None:
            keep(docs, name, records)
    return int(failed > 0)


def measured(name: str, row: Row) -> Iterator[Record]:
    """What is found for each network of a row."""
    with tempfile.TemporaryDirectory() as files:
        problem = None if row.script is None else _written(row, files)
        for network in row.networks:
            needed = problem if "{files}" in network.source else None
            known = {"row": name, "source": _shown(network), "problem": needed}
            yield known | (_tried(network, files) if needed is None else {})


def _written(row: Row, files: str) -> str | None:
    """Let the row's script write its files; what went wrong."""
    python = environments.find(row.environment).python if row.environment else Path(sys.executable)
    if not python.is_file():
        return f"the environment {row.environment} is not there"
    done = subprocess.run([python, SOURCES / str(row.script), files], check=False, capture_output=True, text=True)
    return f"{row.script} fails: {done.stderr.strip().splitlines()[-1]}" if done.returncode else None


def _shown(network: Network) -> str:
    backend = f" on {network.backend}" if network.backend else ""
    return f"{network.source.replace('{files}/', '')}{backend}"


def _tried(network: Network, files: str) -> Record:
    start = time.perf_counter()
    try:
        with _keras_backend(network.backend):
            found = convert_with_report(network.source.format(files=files), inputs=network.inputs, trust=network.trust)
        seconds = time.perf_counter() - start
        return {"seconds": round(seconds, 1)} | _facts(found) | _pruned(found.model, linear=network.linear)
    except AsgnasError as problem:
        return {"problem": problem.message}


@contextmanager
def _keras_backend(name: str | None) -> Iterator[None]:
    before = os.environ.pop("KERAS_BACKEND", None)
    if name is not None:
        os.environ["KERAS_BACKEND"] = name
    try:
        yield
    finally:
        os.environ.pop("KERAS_BACKEND", None)
        if before is not None:
            os.environ["KERAS_BACKEND"] = before


def _facts(found: Conversion) -> Record:
    names = found.names
    return {
        "exporter": found.exporter or "; ".join(found.notes).partition(";")[0] or "read as it is",
        "environment": found.environment,
        "operators": sum(found.operators.values()),
        "difference": found.max_relative_difference,
        "batches": list(found.batch_sizes),
        "folded": found.folded,
        "normalisations": found.normalisations,
        "named": len(names.kept) + len(names.renamed),
        "parameters": len(names.kept) + len(names.renamed) + len(names.lost),
    }


def _pruned(model: onnx.ModelProto, *, linear: bool) -> Record:
    try:
        pruned = cut(model, nas.Target(uniform=0.5))
    except TargetError as refusal:
        return {"refused": refusal.message} | ({} if linear else {"problem": f"nothing to prune: {refusal.message}"})
    found = pruned.verify()
    record: Record = {"kept": pruned.kept["params"], "verified": found.max_relative_difference, "moved": found.moved}
    if linear:
        return record | {"problem": "there should be nothing to prune"}
    if not found.passed:
        return record | {"problem": f"zeroed and compact differ by {found.max_relative_difference:.1e}"}
    return record | ({} if found.moved >= LEAST_MOVE else {"problem": f"the cut moved the output by {found.moved:.1e}"})


def line(record: Mapping[str, Any]) -> str:
    """A record for the terminal."""
    start = f"{record['source']:48}"
    if "exporter" not in record:
        return f"{start} FAILED: {record['problem']}"
    facts = [f"{record['seconds']:5.1f} s", *(cell.strip() for cell in _cells(record)[1:-1] if cell)]
    trouble = [f"FAILED: {record['problem']}"] if record["problem"] else []
    return " | ".join([start, *facts, *trouble])


def keep(docs: Path, row: str, records: list[Record]) -> None:
    """Put a row's records beside the page, instead of older ones, and write the page's table of all."""
    file = docs.with_suffix(".jsonl")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known = [json.loads(each) for each in lines]
    merged = [*(each for each in known if each["row"] != row), *records]
    merged.sort(key=lambda each: list(ROWS).index(each["row"]))  # stable: the order inside a row stays
    file.write_text("".join(f"{json.dumps(each)}\n" for each in merged), encoding="utf-8")
    text, mark, _ = docs.read_text(encoding="utf-8").partition(f"{HEADING}\n")
    docs.write_text(f"{text if mark else text.rstrip() + chr(10) * 2}{HEADING}\n\n{table(merged)}", encoding="utf-8")


_INTRODUCTION = """\
`make converters` writes this section. Random weights. *difference*: the largest from the source's outputs, relative, on
random inputs at two batch sizes (one where the source fixes it). *BN*: batch normalisations that are one operator
still, of those of the source. *names*: trainable parameters that have the source's names. Then `prune --uniform 0.5`:
parameters kept, and the largest relative difference between compact and zeroed full model (1e-5 is allowed). Seconds of
two busy cores. On Keras without a backend it is torch.
"""
_COLUMNS = ("source", "written by", "operators", "difference", "BN", "names", "kept", "verified", "seconds")


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """The section of the page."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_cells(record) for record in records)]
    return f"{_INTRODUCTION}\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    if "exporter" not in record:
        return (f"`{record['source']}`", f"failed: {record['problem']}", *("",) * (len(_COLUMNS) - 2))
    difference, normalisations = record["difference"], record["normalisations"]
    verified = "nothing to remove" if "refused" in record else f"{record['verified']:.1e}"
    verified = f"**failed:** {record['problem']}" if record["problem"] else verified
    return (
        f"`{record['source']}`",
        record["exporter"],
        str(record["operators"]),
        "" if difference is None else f"{difference:.1e}",
        "" if not normalisations else f"{normalisations - record['folded']} of {normalisations}",
        f"{record['named']} of {record['parameters']}" if record["parameters"] else "",
        f"{record['kept']:.0%}" if "kept" in record else "",
        verified,
        f"{record['seconds']:.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
