"""How time and memory of the analysis grow: chains of residual branches, each measured in a process of its own.

    python -m benchmarks.peers.growth FILE {prune,erase} REPEATS

analysis.py runs it for each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers.pairs import report
from benchmarks.peers.records import circumstances
from onnx_asgnas.space import analyze

CHANNELS = 4
SIZES = (1_000, 10_000, 100_000)
MODES = ("prune", "erase")
UNITS = ("seconds", "megabytes")
_MEBIBYTE = 2**20


def network(operators: int) -> onnx.ModelProto:
    """A chain of about so many operators: blocks x + bn(conv(relu(bn(conv(x))))), every fourth joins two by Concat."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        weights.append(numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type}{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv_norm(x: str, inputs: int = CHANNELS) -> str:
        y = node("Conv", x, weight(CHANNELS, inputs, 1, 1))
        return node("BatchNormalization", y, *(weight(CHANNELS) for _ in range(3)), "ones")

    weights.append(numpy_helper.from_array(np.ones(CHANNELS, np.float32), "ones"))
    x, blocks = "x", 0
    while len(nodes) < operators - 2:
        blocks += 1
        if blocks % 4:
            x = node("Add", x, conv_norm(node("Relu", conv_norm(x))))
        else:
            x = conv_norm(node("Relu", node("Concat", conv_norm(x), conv_norm(x), axis=1)), 2 * CHANNELS)
    shape: list[str | int | None] = ["N", CHANNELS, 4, 4]
    last = node("Relu", x)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Measure one file, and report."""
    file, mode, repeats = sys.argv[1:]
    report([measure(Path(file), mode, int(repeats))])


def measure(path: Path, mode: Any, repeats: int) -> dict[str, Any]:
    """Seconds of one analysis (the median), and by how much the first one raised what the process holds.

    A small network is analysed before, so that what Python imports on the way counts as nobody's.
    """
    around = circumstances()
    analyze(network(100), mode=mode)
    model = onnx.load(path)
    before = _forget_peak()
    clock, processor, peak = [], [], 0
    for _ in range(repeats):
        times = time.perf_counter(), time.process_time()
        space = analyze(model, mode=mode)
        clock.append(time.perf_counter() - times[0])
        processor.append(time.process_time() - times[1])
        peak = peak or _memory("VmHWM")
        found = {"structures": len(space.structures), "groups": space.channel_groups.total}
        del space
    return {
        "kind": "growth",
        "operators": len(model.graph.node),
        "mode": mode,
        "seconds": round(median(clock), 4),
        "cpu": round(median(processor), 4),
        "megabytes": round(max(peak - before, 0) / _MEBIBYTE, 1),
        **found,
        **around,
    }


def _forget_peak() -> int:
    """What this process holds now, in bytes; from here on its peak (VmHWM) counts anew.

    ru_maxrss would be no use: it survives an exec, and starts as that of the parent.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The powers with which time and memory grow with operators, fitted by least squares on logarithms."""
    sizes = np.log([row["operators"] for row in rows])
    return {unit: float(np.polyfit(sizes, np.log([row[unit] for row in rows]), 1)[0]) for unit in UNITS}


if __name__ == "__main__":
    main()
