"""How fast models are analysed and cut: against torch-pruning and onnxsim side by side, and as they grow.

    python benchmarks/analysis.py MODELS [--only PATTERN] [--rounds 9]   # in the environment of `make bench-env`
    python benchmarks/analysis.py --scaling [--rounds 3]                 # needs nothing but the package

MODELS is a folder of exported networks; what it lacks is exported into it. For each network one process of one thread
runs, in rounds of random order: `nas.analyze` of the loaded model (its normal form, shapes, all) against
torch-pruning's dependency graph with the enumeration of all groups; `cut` of half the channels from the loaded model
(analysis, choice, surgery; no check) against torch-pruning's whole prune of the loaded module; and onnxsim, which the
other tool that prunes ONNX needs first. A ratio is the median over the rounds of their time over ours. Results go to
docs/pruning.jsonl, and docs/pruning.md is made anew.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from pathlib import Path
from statistics import geometric_mean
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[0] = str(_CHECKOUT)  # in place of this script's folder, in which a module has the name of a package

from benchmarks.peers import page, records  # noqa: E402
from benchmarks.peers.pairs import in_own_process  # noqa: E402

_ROUNDS, _REPEATS = 9, 3


def main() -> None:
    """Measure what is asked for, and write the page."""
    options = _options()
    if options.models is not None:
        against_peers(options.models.resolve(), options.only, options.rounds or _ROUNDS)
    if options.scaling:
        scaling(options.rounds or _REPEATS)


def against_peers(folder: Path, only: str, rounds: int) -> None:
    """Every network from both exporters' files, one process after another."""
    from benchmarks.peers.networks import ALL, EXPORTERS, TIMED, file_of

    found: list[dict[str, Any]] = []
    for name in ALL:
        for exporter in EXPORTERS:
            if not fnmatch.fnmatch(f"{name}.{exporter}", only):
                continue
            path = file_of(name, exporter, folder)
            company = "peers" if name in TIMED else "alone"
            found += in_own_process("benchmarks.peers.speed", name, exporter, str(path), str(rounds), company)
            print(_line(found[-1]), flush=True)
            records.keep(found[-1:])
    page.write()
    for kind in ("analysis", "cut"):
        for exporter in EXPORTERS:
            ratios = [r["ratio"][kind] for r in found if r["exporter"] == exporter and kind in r["ratio"]]
            if ratios:
                mean = f"{geometric_mean(ratios):.2f} times in the geometric mean"
                print(f"{kind}, {exporter}: {mean}, {min(ratios):.2f} at least")


def scaling(repeats: int) -> None:
    """Time and memory of the analysis at growing sizes, and the powers with which they grow."""
    import onnx

    from benchmarks.peers.growth import MODES, SIZES, exponents, network

    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{size}.onnx") for size in SIZES]
        for size, file in zip(SIZES, files, strict=True):
            onnx.save(network(size), file)
        for mode in MODES:
            for file in files:
                found += in_own_process("benchmarks.peers.growth", str(file), mode, str(repeats))
                row = found[-1]
                print(
                    f"{mode}, {row['operators']} operators: {row['seconds']:.3f} s, {row['megabytes']} MB", flush=True
                )
            powers = exponents(found[-len(files) :])
            print(f"{mode}: time grows with the power {powers['seconds']:.3f}, memory with {powers['megabytes']:.3f}")
    records.keep(found)
    page.write()


def _line(record: dict[str, Any]) -> str:
    times = ", ".join(f"{label} {found['median']:.3f} s" for label, found in record["seconds"].items())
    ratios = ", ".join(
        f"{kind} {ratio:.2f} times (by the processor's clock {record['cpu_ratio'][kind]:.2f})"
        for kind, ratio in record["ratio"].items()
    )
    return f"{record['model']}.{record['exporter']}: {times}; faster: {ratios or '-'}; load {record['load']}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?", help="the folder of exported networks")
    parser.add_argument("--only", default="*", help="a pattern of NAME.EXPORTER")
    parser.add_argument("--rounds", type=int, help=f"rounds, {_ROUNDS}, or analyses of each size, {_REPEATS}")
    parser.add_argument("--scaling", action="store_true", help="chains of 1,000 to 100,000 operators")
    options = parser.parse_args()
    if options.models is None and not options.scaling:
        parser.error("give the folder of exported networks, or --scaling, or both")
    return options


if __name__ == "__main__":
    main()
