"""How long the analysis of large graphs takes: chains of residual branches, of 1,000 to 10,000 operators and more.

    python benchmarks/analysis.py [OPERATORS ...]

Each block is x + bn(conv(relu(bn(conv(x))))), and every fourth one joins two branches in a Concat instead. Printed are
seconds for the normal form, the analysis, one selection of half the structures, and construct.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.config import Target
from onnx_asgnas.graph import normalise
from onnx_asgnas.space import analyze
from onnx_asgnas.surgery import construct

CHANNELS = 4


def network(operators: int) -> onnx.ModelProto:
    """A chain of blocks with about so many operators."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        weights.append(numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(op_type: str, *inputs: str, **attributes: object) -> str:
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
    shape = ["N", CHANNELS, 4, 4]
    last = node("Relu", x)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Print one line for each size."""
    print(f"{'operators':>10} {'structures':>10} {'normalise':>10} {'analyze':>10} {'choose':>10} {'construct':>10}")
    for size in [int(argument) for argument in sys.argv[1:]] or [1_000, 3_000, 10_000]:
        model = network(size)
        times = [time.perf_counter()]
        plain = normalise(model)
        times.append(time.perf_counter())
        space = analyze(plain)
        times.append(time.perf_counter())
        scores = np.random.default_rng(0).random(len(space.candidates))
        selection = space.choose(lambda _, scores=scores: scores, Target(remove_groups=0.5))
        times.append(time.perf_counter())
        tensors = {t.name: t for t in plain.graph.initializer}
        for index in selection.chosen:
            for piece in space.groups[index].slices:
                values = numpy_helper.to_array(tensors[piece.initializer]).copy()
                values[...] = 0 if piece.axis is None else values
                values[(slice(None),) * (piece.axis or 0) + (list(piece.indices),)] = 0
                tensors[piece.initializer].CopyFrom(numpy_helper.from_array(values, piece.initializer))
        start = time.perf_counter()
        construct(plain, space)
        seconds = [*np.diff(times), time.perf_counter() - start]
        print(f"{len(model.graph.node):>10} {len(space.candidates):>10} " + " ".join(f"{s:>9.2f}s" for s in seconds))


if __name__ == "__main__":
    main()
