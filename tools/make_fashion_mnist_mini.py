"""Make the embedded subset of Fashion-MNIST, or check that it is the one that this script makes.

    python tools/make_fashion_mnist_mini.py [FOLDER] [--check]

500 training images of each class and 100 test images of each, drawn by `balanced_subset` (a fixed seed), in the order
of the full set, as bytes. FOLDER holds the four published files; default is where Debian's package puts them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from onnx_asgnas.training.data.fashion_mnist import DEFAULT_FOLDER, MINI, read_idx
from onnx_asgnas.training.data.selection import balanced_subset

TARGET = Path(__file__).parents[1] / "onnx_asgnas" / "training" / "data" / MINI


def main() -> int:
    """Write or check the file; 1 if the check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(DEFAULT_FOLDER))
    parser.add_argument("--check", action="store_true", help="compare with the file in the package, write nothing")
    options = parser.parse_args()
    arrays = {}
    for part, prefix, count in (("train", "train", 5000), ("test", "t10k", 1000)):
        labels = read_idx(options.folder, f"{prefix}-labels-idx1-ubyte")
        chosen = balanced_subset(labels, count)
        arrays[f"{part}_images"] = read_idx(options.folder, f"{prefix}-images-idx3-ubyte")[chosen]
        arrays[f"{part}_labels"] = labels[chosen]
    if options.check:
        with np.load(TARGET) as content:
            same = {*content.files} == {*arrays} and all(np.array_equal(content[n], a) for n, a in arrays.items())
        print(f"{TARGET}: {'as made by this script' if same else 'differs from what this script makes'}")
        return 0 if same else 1
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
