"""Random ONNX networks, drawn by Hypothesis or by a plain seed, and what the tests do with them.

Every weight is random and distinct, BatchNormalization has random statistics, so that a check on numbers cannot pass
by accident. All sizes are tiny: images of 8x8 pixels, two to six channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import random_inputs, run, session
from onnx_asgnas.space import Group, SearchSpace

Decide = Callable[[int], int]
"""One decision: a whole number from 0 up to, not including, the argument. Zero is the plainest choice."""

SIZE = 8
OPSET = 17
IR_VERSION = 8


def seeded_network(seed: int, steps: int | None = None) -> onnx.ModelProto:
    """The network that a plain seed gives."""
    random = np.random.default_rng(seed)
    return RandomNetwork(lambda n: int(random.integers(n)), seed).build(steps)


@st.composite
def networks(draw: st.DrawFn, steps: int | None = None) -> onnx.ModelProto:
    """Random networks that shrink towards few and plain operators."""
    seed = draw(st.integers(0, 2**16))
    return RandomNetwork(lambda n: draw(st.integers(0, n - 1)), seed).build(steps)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation [N, channels, size, size]."""

    name: str
    channels: int
    size: int


@dataclass(slots=True)
class RandomNetwork:
    """A network that grows by one block at a time, from tensors that are there already."""

    decide: Decide
    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    pool: list[Tensor] = field(default_factory=list)
    kernels: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    numbers: Any = None

    def build(self, steps: int | None = None) -> onnx.ModelProto:
        """One network: inputs, blocks, outputs."""
        self.numbers = np.random.default_rng(self.seed)
        batch: int | str = ("N", 2)[self.decide(4) // 3]
        inputs = [Tensor(f"input{i}", 2 + self.decide(3), SIZE) for i in range(1 + self.decide(5) // 4)]
        self.pool += inputs
        for tensor in inputs:
            self.pool.append(self.chain(tensor))
        blocks = (
            self.residual,
            self.sum_of_branches,
            self.concat_of_branches,
            self.dense_block,
            self.bottleneck,
            self.gated,
            self.chain_block,
            self.product,
            self.concat_along_height,
            self.queries,
        )
        for _ in range(2 + self.decide(6) if steps is None else steps):
            self.pool.append(blocks[self.decide(len(blocks))](self.recent()))
        outputs = [self.head(self.pool[-1])]
        for _ in range(self.decide(4) // 2):
            outputs.append(self.head(self.recent()))
        return self._model(inputs, outputs, batch)

    def recent(self) -> Tensor:
        """One of the last tensors, mostly the very last."""
        return self.pool[-1 - min(self.decide(3) * self.decide(2), len(self.pool) - 1)]

    # -- blocks: each takes a tensor and gives one of the same size --------------------------------------------------

    def chain_block(self, x: Tensor) -> Tensor:
        return self.chain(x)

    def residual(self, x: Tensor) -> Tensor:
        """The residual x + f(x), the sum perhaps with a Relu behind it."""
        return self.maybe_relu(self.add([x, self.branch(x, x.channels)]))

    def sum_of_branches(self, x: Tensor) -> Tensor:
        """Several branches to one channel count, some of them nested or of another tensor, in one n-ary sum."""
        channels = 2 + self.decide(4)
        branches = [
            self.branch(self.recent() if self.decide(4) == 3 else x, channels) for _ in range(2 + self.decide(3))
        ]
        if self.decide(3) == 2:
            branches.append(self.branch(self.add(branches[:2]), channels))
        if self.decide(5) == 4:
            branches.append(self.vector(self.pooled(x), channels))
        return self.maybe_relu(self.add(branches))

    def concat_of_branches(self, x: Tensor) -> Tensor:
        """Branches of an Inception block, perhaps nested, read by BatchNormalization, Relu, a gate or convolutions."""
        operands = [self.branch(x, 2 + self.decide(3)) for _ in range(2 + self.decide(2))]
        if self.decide(4) == 3:
            inner = self.concat(operands[:2])
            operands = [inner, *operands[2:], self.branch(x, 2)]
        if self.decide(4) == 3:
            operands.append(x)
        return self.after_concat(self.concat(operands))

    def dense_block(self, x: Tensor) -> Tensor:
        """[x, f(x)], [x, f(x), g(x, f(x))], …"""
        for _ in range(1 + self.decide(2)):
            grown = self.conv(self.relu(self.norm(x)), 2 + self.decide(2))
            x = self.concat([x, grown])
        return self.after_concat(x)

    def bottleneck(self, x: Tensor) -> Tensor:
        """Down by a strided convolution or a pooling, up by a nearest Resize, and added."""
        low = self.pooling(x, 2) if self.decide(2) else self.conv(x, x.channels, stride=2)
        low = self.chain(low, x.channels)
        if self.decide(2):
            low = self.add([low, self.branch(low, low.channels)])
        return self.add([self.resize(low), x])

    def gated(self, x: Tensor) -> Tensor:
        """Squeeze and excitation, in a residual branch or not."""
        y = self.chain(x, x.channels)
        gate = self.vector(self.relu(self.vector(self.pooled(y), 2)), y.channels)
        y = self.node("Mul", [y, self.node("Sigmoid", [gate])])
        return self.add([x, y]) if self.decide(3) else y

    def product(self, x: Tensor) -> Tensor:
        """A product of two branches, which is no joint."""
        y = self.node("Mul", [self.branch(x, x.channels), self.branch(x, x.channels)])
        return self.add([x, y]) if self.decide(2) else self.maybe_relu(y)

    def concat_along_height(self, x: Tensor) -> Tensor:
        """Two halves one above the other: a Concat that joins no channels."""
        halves = [self.pooling(self.branch(x, x.channels), 2) for _ in range(2)]
        joined = self.node("Concat", halves, axis=2)
        return self.conv(self.resize(Tensor(joined.name, x.channels, SIZE // 2), height=1), x.channels)

    def queries(self, x: Tensor) -> Tensor:
        """Added to x: what depends on its shape and no value, as the queries of DETR's first decoder layer."""
        value = helper.make_tensor("value", TensorProto.FLOAT, [1], [(0.0, 0.5)[self.decide(2)]])
        shape = self.node("Shape", [x])
        start = Tensor(self.node("ConstantOfShape", [shape.name], value=value).name, x.channels, x.size)
        grown = self.add([start, self.branch(start, x.channels)]) if self.decide(3) else self.branch(start, x.channels)
        return self.add([x, self.maybe_relu(grown)])

    # -- parts --------------------------------------------------------------------------------------------------------

    def branch(self, x: Tensor, channels: int) -> Tensor:
        """A chain that ends in so many channels; once in a while without a parameter, or with a shared one."""
        kind = self.decide(8)
        if kind == 7 and channels == x.channels:
            return self.pooling(x, 1)
        if kind == 6 and channels == x.channels:
            return x if self.decide(2) else self.norm(x)
        if kind == 5:
            return self.depthwise(self.conv(x, channels))
        if kind == 4:
            shared = [name for name, dims in self.kernels if dims[:2] == (channels, x.channels)]
            if shared:
                return self.conv(x, channels, kernel=shared[self.decide(len(shared))])
        return self.chain(x, channels)

    def chain(self, x: Tensor, channels: int | None = None) -> Tensor:
        """Conv, perhaps with BatchNormalization and Relu around it, once or twice."""
        for _ in range(1 + self.decide(2)):
            x = self.conv(x, channels or 2 + self.decide(4))
            x = self.norm(x) if self.decide(2) else x
            x = self.maybe_relu(x)
        return self.scaled(x) if self.decide(8) == 7 else x

    def after_concat(self, x: Tensor) -> Tensor:
        """What reads a Concat: some mend their channels, some gate them, some pass them on."""
        for _ in range(self.decide(3)):
            kind = self.decide(7)
            if kind == 0:
                x = self.norm(x)
            elif kind == 1:
                x = self.relu(x)
            elif kind == 2:
                x = self.depthwise(x)
            elif kind == 3:
                gate = self.node("Sigmoid", [self.depthwise(x)])
                x = self.node("Mul", [x, gate])
            elif kind == 4:
                x = self.pooling(x, 1)
            elif kind == 5:
                x = self.add_bias(x)
            else:
                x = self.scaled(x)
        return self.conv(x, 2 + self.decide(4)) if self.decide(2) else x

    def head(self, x: Tensor) -> str:
        """An output: features as they are, or a classifier by one of several ways."""
        kind = self.decide(5)
        if kind == 0:
            x = self.pooled(x)
            return self.linear(self.node("Flatten", [x], axis=1).name, x.channels)
        if kind == 1:
            return self.linear(self.node("Flatten", [x], axis=1).name, x.channels * SIZE * SIZE)
        if kind == 2:
            target = self.constant(np.array([0, x.channels, -1], np.int64))
            rows = self.node("Reshape", [x, target])
            mean = self.node("ReduceMean", [rows], axes=[2], keepdims=0)
            return self.linear(mean.name, x.channels)
        if kind == 3:
            target = self.constant(np.array([0, x.channels, SIZE * SIZE], np.int64))
            rows = self.node("Transpose", [self.node("Reshape", [x, target])], perm=[0, 2, 1])
            weight = self.weight((x.channels, 3))
            return self.node("MatMul", [rows, weight]).name
        return self.node("Relu", [self.conv(x, 2)]).name

    def linear(self, features: str, length: int) -> str:
        weight = self.weight((3, length), 1 / length)
        return self.node("Gemm", [features, weight, self.weight((3,))], transB=1).name

    def conv(self, x: Tensor, channels: int, *, stride: int = 1, kernel: str | None = None) -> Tensor:
        size = (1, 3)[self.decide(2)]
        if kernel is None:
            kernel = self.weight((channels, x.channels, size, size), 1 / (x.channels * size * size))
            self.kernels.append((kernel, (channels, x.channels, size, size)))
        else:
            size = next(dims[2] for name, dims in self.kernels if name == kernel)
        operands: list[Tensor | str] = [x, kernel]
        operands += [self.weight((channels,))] if self.decide(2) else []
        y = self.node("Conv", operands, kernel_shape=[size] * 2, pads=[size // 2] * 4, strides=[stride] * 2)
        return Tensor(y.name, channels, x.size // stride)

    def depthwise(self, x: Tensor) -> Tensor:
        operands: list[Tensor | str] = [x, self.weight((x.channels, 1, 3, 3), 1 / 9)]
        operands += [self.weight((x.channels,))] if self.decide(2) else []
        return self.node("Conv", operands, kernel_shape=[3, 3], pads=[1] * 4, group=x.channels)

    def vector(self, x: Tensor, channels: int) -> Tensor:
        """A 1x1 convolution of a pooled tensor, with bias."""
        weight = self.weight((channels, x.channels, 1, 1), 1 / x.channels)
        return Tensor(self.node("Conv", [x, weight, self.weight((channels,))]).name, channels, 1)

    def norm(self, x: Tensor) -> Tensor:
        values = [self.numbers.normal(1, 0.3, x.channels), self.numbers.normal(0, 0.5, x.channels)]
        values += [self.numbers.normal(0, 0.5, x.channels), self.numbers.uniform(0.5, 2, x.channels)]
        return self.node("BatchNormalization", [x, *(self.constant(v.astype(np.float32)) for v in values)])

    def scaled(self, x: Tensor) -> Tensor:
        """Times a trainable vector, or a constant."""
        shape = (x.channels, 1, 1) if self.decide(2) else ()
        return self.node("Mul", [x, self.weight(shape)])

    def add_bias(self, x: Tensor) -> Tensor:
        shape = ((1, x.channels, 1, 1), (x.channels, 1, 1), ())[self.decide(3)]
        return self.node("Add", [x, self.weight(shape)])

    def relu(self, x: Tensor) -> Tensor:
        return self.node(("Relu", "Tanh", "LeakyRelu")[self.decide(3)], [x])

    def maybe_relu(self, x: Tensor) -> Tensor:
        return self.relu(x) if self.decide(2) else x

    def pooled(self, x: Tensor) -> Tensor:
        return Tensor(self.node("GlobalAveragePool", [x]).name, x.channels, 1)

    def pooling(self, x: Tensor, stride: int) -> Tensor:
        kind = ("MaxPool", "AveragePool")[self.decide(2)]
        y = self.node(kind, [x], kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        return Tensor(y.name, x.channels, x.size // stride)

    def resize(self, x: Tensor, height: int = 2) -> Tensor:
        scales = self.constant(np.array([1, 1, height, 2], np.float32))
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return Tensor(self.node("Resize", [x, "", scales], **modes).name, x.channels, x.size * 2)

    def add(self, operands: Sequence[Tensor]) -> Tensor:
        """A Sum, or a chain of Adds, in the order given or turned round; a scalar bias may hide in the chain."""
        if self.decide(4) == 3 and len(operands) > 2:
            return Tensor(self.node("Sum", list(operands)).name, operands[0].channels, operands[0].size)
        total = operands[0]
        for operand in operands[1:]:
            pair = [total, operand] if self.decide(2) else [operand, total]
            total = Tensor(self.node("Add", pair).name, total.channels, total.size)
            total = self.add_bias(total) if self.decide(8) == 7 else total
        return total

    def concat(self, operands: Sequence[Tensor]) -> Tensor:
        y = self.node("Concat", list(operands), axis=1)
        return Tensor(y.name, sum(o.channels for o in operands), operands[0].size)

    # -- ONNX ----------------------------------------------------------------------------------------------------

    def node(self, op_type: str, operands: Sequence[Tensor | str], **attributes: Any) -> Tensor:
        """Add a node; its output has the first operand's channels and size."""
        name = f"{op_type.lower()}{len(self.nodes)}"
        inputs = [o if isinstance(o, str) else o.name for o in operands]
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        first = operands[0]
        return Tensor(name, first.channels, first.size) if isinstance(first, Tensor) else Tensor(name, 0, 0)

    def weight(self, shape: tuple[int, ...], variance: float = 0.25) -> str:
        return self.constant(self.numbers.normal(0, variance**0.5, shape).astype(np.float32))

    def constant(self, value: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _model(self, inputs: Sequence[Tensor], outputs: Iterable[str], batch: int | str) -> onnx.ModelProto:
        given = [
            helper.make_tensor_value_info(t.name, TensorProto.FLOAT, [batch, t.channels, SIZE, SIZE]) for t in inputs
        ]
        results = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(outputs)]
        graph = helper.make_graph(self.nodes, "random", given, [], self.weights)
        graph.output.extend(results)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        inferred |= {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
        del model.graph.output[:]
        model.graph.output.extend(inferred[r.name] for r in results)
        onnx.checker.check_model(model, full_check=True)
        return model


def zeroed(model: onnx.ModelProto, groups: Iterable[Group]) -> onnx.ModelProto:
    """A copy of the model in which these groups are exactly zero."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {t.name: t for t in result.graph.initializer}
    for group in groups:
        for piece in group.slices:
            values = numpy_helper.to_array(tensors[piece.initializer]).copy()
            if piece.axis is None:
                values[...] = 0
            else:
                values[(slice(None),) * piece.axis + (list(piece.indices),)] = 0
            tensors[piece.initializer].CopyFrom(numpy_helper.from_array(values, piece.initializer))
    return result


def outputs_of(model: onnx.ModelProto, batch: int = 2, seed: int = 0) -> dict[str, NDArray[Any]]:
    """What the model gives on random inputs, run node by node."""
    return run(session(model, threads=1), random_inputs(model, batch=batch, seed=seed))


def difference(one: dict[str, NDArray[Any]], two: dict[str, NDArray[Any]]) -> float:
    """The largest difference over the largest value of the same output; infinite for other names or shapes, or NaN."""
    if one.keys() != two.keys() or any(one[n].shape != two[n].shape or one[n].dtype != two[n].dtype for n in one):
        return float("inf")
    worst = []
    for name, value in one.items():
        first, second = value.astype(np.float64), two[name].astype(np.float64)
        worst.append(float(np.abs(first - second).max(initial=0) / max(np.abs(first).max(initial=0), 1e-30)))
    return float("inf") if any(not np.isfinite(w) for w in worst) else max(worst, default=0.0)


def valid_choice(space: SearchSpace, decide: Decide) -> tuple[int, ...]:
    """Some candidates in a random order, each taken where the network stays valid."""
    state = space.removal_state()
    taken: list[int] = []
    left = list(range(len(space.candidates)))
    wanted = 1 + decide(len(left)) if left else 0
    while left and len(taken) < wanted:
        index = left.pop(decide(len(left)))
        if state.is_gone(space.candidates[index].tensor):
            continue
        if state.erase(index):
            taken.append(index)
        else:
            state.undo()
    return tuple(taken)


def graph_of(model: onnx.ModelProto) -> TraceGraph:
    """The trace graph of a model."""
    return TraceGraph.of(model)
