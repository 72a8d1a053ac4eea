"""How far the latency ratio of a model to itself comes out from 1: runs in turn, and one measurement after the other.

What `onnx-asgnas benchmark` says of two models is worth no more than this. Each trial measures one model twice by
`measure_latency`, whose runs take turns, and then twice by itself, one measurement after the other, for as long.

    python benchmarks/latency_noise.py --seconds 0.5 --trials 20
"""

from __future__ import annotations

import argparse

import numpy as np

from onnx_asgnas.evaluation import measure_latency
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.models import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stackedunets?width=8", help="a network of onnx_asgnas.models")
    parser.add_argument("--seconds", type=float, default=0.5, help="time per measurement")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    graph = TraceGraph.of(parse(options.model))
    ratios: dict[str, list[float]] = {
        "in turn, median of paired ratios": [],
        "one after the other, ratio of medians": [],
    }
    for _ in range(options.trials):
        paired = measure_latency([graph, graph], seconds=options.seconds, threads=options.threads)
        first, second = (
            measure_latency([graph], seconds=options.seconds, threads=options.threads)[0] for _ in range(2)
        )
        for errors, ratio in zip(ratios.values(), (paired[1].ratio, second.median / first.median), strict=True):
            errors.append(abs(ratio - 1))
    print(f"{options.model}, {options.trials} trials of {options.seconds} s a model, {options.threads} thread(s)")
    for name, errors in ratios.items():
        print(f"  {name}: off by {100 * np.median(errors):.2f} % (median), {100 * np.max(errors):.2f} % (worst)")


if __name__ == "__main__":
    main()
