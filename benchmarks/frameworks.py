"""The same two networks in PyTorch, Keras and Flax with the same weights: exported, analysed, pruned and searched.

    python benchmarks/frameworks.py [PART ...] [--network NAME] [--framework NAME] [--again] [--seconds 20]

Parts are conversion, losses, choice, latency and search; all of them without any. What docs/frameworks.jsonl has
already is left out, so that a run that was stopped goes on; `--again` measures anew. docs/frameworks.md and its
pictures are made anew at the end. Keras and Flax run in environments of their own (`onnx-asgnas env create keras`,
`… jax`, and `… tensorflow` for the latency of Keras on that backend).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[0] = str(_CHECKOUT)  # in place of this script's folder, in which a module has the name of a package


def main() -> int:
    """Measure what is missing, and write the page; the exit code is 2 where an environment or the data is missing."""
    from benchmarks.frameworks import page
    from benchmarks.frameworks.contenders import FRAMEWORKS, NETWORKS, RECORDS, WORK
    from benchmarks.frameworks.measuring import PARTS, Options, measure
    from onnx_asgnas.errors import AsgnasError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--framework", choices=FRAMEWORKS)
    parser.add_argument("--again", action="store_true", help="measure anew what was measured")
    parser.add_argument("--seconds", type=float, default=20, help="for the latency of each contender")
    parser.add_argument("--work", type=Path, default=WORK, help="the folder of weights, models and runs")
    parser.add_argument("--records", type=Path, default=RECORDS, help="the file of the results")
    given = parser.parse_args()
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("the pictures need matplotlib: pip install 'onnx-asgnas[bench]'")
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    os.chdir(_CHECKOUT)  # where the converters find the networks
    options = Options(
        folder=given.work.resolve(),
        records=given.records.resolve(),
        networks=(given.network,) if given.network else tuple(NETWORKS),
        frameworks=(given.framework,) if given.framework else tuple(FRAMEWORKS),
        again=given.again,
        seconds=given.seconds,
    )
    try:
        for part in given.parts or PARTS:
            measure(part, options)
    except AsgnasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        page.write(options.records, options.records.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
