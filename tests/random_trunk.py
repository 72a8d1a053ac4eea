"""What random networks are made of: nodes, weights that sit in the graph in one of several ways, reshapes in two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Decide = Callable[[int], int]
"""One decision: a whole number from 0 up to, not including, the argument. Zero is the plainest choice."""

SIDE = 6
BATCH = 2


class Tensor:
    """An activation and its shape, open dimensions as in the inputs that the tests feed."""

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        self.name, self.shape = name, tuple(shape)

    @property
    def channels(self) -> int:
        """Of an image [N, C, H, W] the second size, of tokens [N, T, D] the last."""
        return self.shape[1 if len(self.shape) == 4 else -1]


class Trunk:
    """A graph that grows; every method adds nodes and returns the last one's output."""

    def __init__(self, decide: Decide, seed: int) -> None:
        self.decide = decide
        self.numbers = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.open_sides = decide(3) == 2
        self.opset = (17, 13, 21)[decide(3)]

    def node(self, op_type: str, inputs: Sequence[Tensor | str], shape: Sequence[int], **attributes: Any) -> Tensor:
        name = f"{op_type.lower()}{len(self.nodes)}"
        names = [x if isinstance(x, str) else x.name for x in inputs]
        self.nodes.append(helper.make_node(op_type, names, [name], name=name, **attributes))
        return Tensor(name, shape)

    def constant(self, value: Any) -> str:
        """A constant as an initializer, or by a Constant node."""
        array = np.asarray(value)
        if self.decide(4) == 3:
            tensor = numpy_helper.from_array(array, "value")
            return self.node("Constant", [], array.shape, value=tensor).name
        return self.initializer(array)

    def initializer(self, array: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def normal(self, shape: Sequence[int], fan: float = 4.0) -> NDArray[Any]:
        return self.numbers.normal(0, fan**-0.5, shape).astype(np.float32)

    def weight(self, shape: Sequence[int], fan: float = 4.0) -> str:
        """A weight that stands in the graph as it is, or behind Identity, Transpose, Cast or Reshape."""
        kind, values = self.decide(12), self.normal(shape, fan)
        if kind == 11:
            return self.node("Identity", [self.initializer(values)], shape).name
        if kind == 10 and len(shape) > 1:
            order = list(range(len(shape)))[::-1]
            return self.node("Transpose", [self.initializer(values.transpose())], shape, perm=order).name
        if kind == 9:
            double = self.initializer(values.astype(np.float64))
            return self.node("Cast", [double], shape, to=TensorProto.FLOAT).name
        return self.initializer(values)

    def reshape(
        self, x: Tensor, shape: Sequence[int], kept: Iterable[int] = (0,), moved: Mapping[int, int] | None = None
    ) -> Tensor:
        """To a shape of which dimensions are those of x, `kept` at the same place and `moved` from another one.

        They are copied or computed from the shape of x; where no size is open, or once in a while, written as numbers.
        """
        kept, moved, target = set(kept), dict(moved or {}), list(shape)
        if self.decide(3) == 2 or (moved and self.open_sides and self.decide(8) < 7):
            return self.node("Reshape", [x, self._computed(x, target, {at: at for at in kept} | moved)], shape)
        dims = [0 if at in kept else n for at, n in enumerate(target)]
        last = max((at for at in range(len(dims)) if at not in kept), default=-1)
        if last >= 0 and (self.open_sides or self.decide(3) == 1):
            dims[last] = -1
        return self.node("Reshape", [x, self.constant(np.array(dims, np.int64))], shape)

    def _computed(self, x: Tensor, target: Sequence[int], taken: Mapping[int, int]) -> Tensor:
        """The target by Shape, Gather and Concat, as exporters write a reshape of dynamic sizes."""
        size = self.node("Shape", [x], [len(x.shape)])
        parts: list[Tensor | str] = []
        for at, number in enumerate(target):
            if at in taken:
                one = self.node("Gather", [size, self.constant(np.int64(taken[at]))], [], axis=0)
                parts.append(self.node("Unsqueeze", [one, self.constant(np.array([0], np.int64))], [1]))
            else:
                parts.append(self.constant(np.array([number], np.int64)))
        return self.node("Concat", parts, [len(target)], axis=0)

    def transpose(self, x: Tensor, *perm: int) -> Tensor:
        return self.node("Transpose", [x], [x.shape[p] for p in perm], perm=list(perm))

    def mean(self, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        axes = [a % len(x.shape) for a in axes]
        shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes]
        if self.opset >= 18:
            return self.node("ReduceMean", [x, self.constant(np.array(axes, np.int64))], shape, keepdims=int(keep))
        return self.node("ReduceMean", [x], shape, axes=axes, keepdims=int(keep))

    def same(self, op_type: str, *inputs: Tensor | str, **attributes: Any) -> Tensor:
        """An operator whose output has the shape of its first input."""
        assert isinstance(inputs[0], Tensor)
        return self.node(op_type, inputs, inputs[0].shape, **attributes)

    def pieces(self, x: Tensor, axis: int, count: int) -> list[Tensor]:
        """Equal parts by Split, or by Slices."""
        axis %= len(x.shape)
        part = x.shape[axis] // count
        shape = [part if a == axis else n for a, n in enumerate(x.shape)]
        if self.decide(2):
            ends = [np.array([part * (i + 1)], np.int64) for i in range(count)]
            if self.decide(2):
                ends[-1] = np.array([2**63 - 1], np.int64)
            places = self.constant(np.array([axis], np.int64))
            starts = [self.constant(np.array([part * i], np.int64)) for i in range(count)]
            return [
                self.node("Slice", [x, s, self.constant(e), places], shape) for s, e in zip(starts, ends, strict=True)
            ]
        names = [f"split{len(self.nodes)}_{i}" for i in range(count)]
        sizes = [self.constant(np.full(count, part, np.int64))]
        self.nodes.append(helper.make_node("Split", [x.name, *sizes], names, name=names[0], axis=axis))
        return [Tensor(name, shape) for name in names]

    def activation(self, x: Tensor) -> Tensor:
        kind = self.decide(6)
        if kind == 4:
            return self.same("Mul", x, self.same("Sigmoid", x))
        if kind == 5:
            inner = self.same("Erf", self.same("Div", x, self.constant(np.float32(2**0.5))))
            half = self.same("Mul", x, self.same("Add", inner, self.constant(np.float32(1))))
            return self.same("Mul", half, self.constant(np.float32(0.5)))
        return self.same(("Relu", "Tanh", "LeakyRelu", "HardSwish" if self.opset >= 14 else "Elu")[kind], x)

    def maybe(self, x: Tensor) -> Tensor:
        return self.activation(x) if self.decide(2) else x

    def linear(self, x: Tensor, width: int, bias: bool | None = None) -> Tensor:
        """Tokens [N, T, D] or rows [N, D] through MatMul and Add, or Gemm."""
        inside = x.shape[-1]
        if len(x.shape) == 2 and self.decide(2):
            across = self.decide(2)
            weight = self.weight((width, inside) if across else (inside, width), inside)
            return self.node("Gemm", [x, weight, self.weight((width,))], [x.shape[0], width], transB=across)
        product = self.node("MatMul", [x, self.weight((inside, width), inside)], [*x.shape[:-1], width])
        if self.decide(3) if bias is None else bias:
            pair: list[Tensor | str] = [product, self.weight((width,))]
            return self.node("Add", pair if self.decide(2) else pair[::-1], product.shape)
        return product
