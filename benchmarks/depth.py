"""How much is left at `--uniform 0.5`: parameters and MACs kept, side by side with torch-pruning's at the same ratio.

    python benchmarks/depth.py MODELS [--only PATTERN]   # in the environment of `make bench-env`

Ours from the files of both exporters, each checked against the zeroed full model in onnxruntime. Results go to
docs/pruning.jsonl, and docs/pruning.md is made anew.
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
    options = parser.parse_args()
    from benchmarks.peers.networks import ALL

    for name in fnmatch.filter(ALL, options.only):
        found = in_own_process("benchmarks.peers.kept", name, str(options.models.resolve()))
        records.keep(found)
        print(_line(found[0]), flush=True)
    page.write()


def _line(record: dict[str, Any]) -> str:
    ours = ", ".join(
        f"{exporter} {found['params']:.1%} (differs by {found['difference']:.1e})"
        for exporter, found in record["ours"].items()
    )
    theirs = record["torch-pruning"]
    return f"{record['model']}: ours {ours}; torch-pruning " + (theirs.get("refused") or f"{theirs['params']:.1%}")


if __name__ == "__main__":
    main()
