"""Latency in onnxruntime at `--uniform 0.5`: whole, ours, and torch-pruning's at as many parameters, batch 1.

    python benchmarks/pruned_latency.py MODELS [--only PATTERN] [--threads 1 2] [--seconds 10]

In the environment of `make bench-env`. All models of one network run in turn, in rounds of random order; a ratio is the
median over the rounds. Each also with `round_to=8`. Where torch-pruning's ratio of one half keeps another share of the
parameters, the ratio is found at which it keeps as many as ours. Results go to docs/pruning.jsonl, and docs/pruning.md
is made anew.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[0] = str(_CHECKOUT)  # in place of this script's folder, in which a module has the name of a package

from benchmarks.peers import page, records  # noqa: E402
from benchmarks.peers.pairs import in_own_process  # noqa: E402


def main() -> None:
    """One network after another, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the folder of exported networks")
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10, help="for each model and number of threads")
    options = parser.parse_args()
    from benchmarks.peers.networks import ALL

    for name in fnmatch.filter(ALL, options.only):
        arguments = (name, str(options.models.resolve()), str(options.seconds), *map(str, options.threads))
        found = in_own_process("benchmarks.peers.latency", *arguments)
        records.keep(found)
        print("\n".join(map(_line, found)), flush=True)
    page.write()


def _line(record: dict[str, Any]) -> str:
    models = "; ".join(
        f"{label} {found['milliseconds']:.2f} ms ({found['ratio']:.3f})"
        if "milliseconds" in found
        else f"{label} refused"
        for label, found in record["models"].items()
    )
    return f"{record['model']}, {record['threads']} thread(s): {models}; load {record['load']}"


if __name__ == "__main__":
    main()
