"""Compact against zeroed full network of finished searches, in the onnxruntime of the environment that runs this.

For the newest runtime, which cannot live beside the training one: an environment of tools/corpus/newest-runtime.txt.
Printed is the largest relative difference over all runs, on images drawn at random.

    newest/bin/python benchmarks/runs_in_newest_runtime.py runs/experiments
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

_BATCH = 8
_QUIET = 4


def main() -> None:
    """Compare the two networks of every run directory in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the -o of `onnx-asgnas experiment`")
    compacts = sorted(parser.parse_args().folder.glob("*/compact.onnx"))
    found = {path.parent.name: _difference(path.with_name("trained.onnx"), path) for path in compacts}
    if not found:
        parser.error("there is no */compact.onnx in that folder")
    worst = max(found, key=lambda name: found[name])
    print(f"onnxruntime {onnxruntime.__version__}: {len(found)} runs, at most {found[worst]:.1e} ({worst})")


def _difference(full: Path, compact: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    sessions = [onnxruntime.InferenceSession(str(path), options) for path in (full, compact)]
    (source, *_) = sessions[0].get_inputs()
    images = np.random.default_rng(0).standard_normal((_BATCH, *source.shape[1:])).astype(np.float32)
    before, after = (session.run(None, {source.name: images})[0] for session in sessions)
    return float(np.abs(before - after).max() / np.abs(before).max())


if __name__ == "__main__":
    main()
