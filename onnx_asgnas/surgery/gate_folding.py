"""Fold the gates that survive into a neighbouring weight, where that gives the same in exact arithmetic.

A gate scales one operand of a joint. Once its joint is gone, or nothing else reads what it scales, the scalar can move
along operators that commute with it until it meets a weight that only it can reach. Else its product stays.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas.graph.gates import gates_of, name_gates
from onnx_asgnas.graph.nodes import read_by

_LINEAR = frozenset(
    {
        "AveragePool",
        "DepthToSpace",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "ReduceMean",
        "ReduceSum",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""f(g x) = g f(x) for every g."""
_POSITIVE = frozenset({"GlobalMaxPool", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
"""f(g x) = g f(x) for g > 0."""
_READERS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,), "Mul": (0, 1)}
"""Operators that are linear in their first input, and the weights that may take its factor (the other one of a Mul)."""
_MAKERS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1,),
    "BatchNormalization": (1, 2),
    "Mul": (0, 1),
}
"""Operators and the weights that, all scaled, scale the output (one of those of a Mul)."""
_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def fold_gates(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the gates that could move into a weight or are one; the argument is changed, and given back."""
    gates = gates_of(model)
    if gates:
        _Folding(model, gates).perform()
    return model


class _Folding:
    """The model's wiring while gates leave it."""

    def __init__(self, model: onnx.ModelProto, gates: frozenset[str]) -> None:
        self._model, self._gates = model, gates
        graph = model.graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._reads = Counter(name for node in graph.node for name in read_by(node))
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in set(read_by(node)):
                self._readers.setdefault(name, []).append(node)
        self._maker = {name: node for node in graph.node for name in node.output}
        self._captured = {name for node in graph.node for name in read_by(node) if name not in node.input}
        self._gone: set[str] = set()

    def perform(self) -> None:
        """Fold what can be folded, and name the gates that are left."""
        graph = self._model.graph
        left = set()
        for node in list(graph.node):
            gate = next((name for name in node.input if name in self._gates), None)
            if node.op_type == "Mul" and gate is not None and gate in self._weights and not self._fold(node, gate):
                left.add(gate)
        for node in [node for node in graph.node if node.output[0] in self._gone]:
            graph.node.remove(node)
        read = {name for node in graph.node for name in read_by(node)} | self._outputs
        for tensor in [t for t in graph.initializer if t.name in self._gates and t.name not in read]:
            graph.initializer.remove(tensor)
        for value in [value for value in graph.value_info if value.name in self._gone]:
            graph.value_info.remove(value)
        name_gates(self._model, left)

    def _fold(self, product: onnx.NodeProto, gate: str) -> bool:
        tensor = self._weights[gate]
        factor = float(numpy_helper.to_array(tensor).reshape(-1)[0])
        data = next(name for name in product.input if name != gate)
        stays = product.output[0] in self._outputs or product.output[0] in self._captured
        if stays or self._reads[gate] != 1 or not np.isfinite(factor) or factor == 0:
            return False
        exact = tensor.data_type in _TYPES
        if factor != 1 and not (exact and (self._upwards(data, factor) or self._downwards(product.output[0], factor))):
            return False
        self._bypass(product, data)
        return True

    def _upwards(self, name: str, factor: float) -> bool:
        """Scale what makes a tensor that nothing else reads."""
        while self._reads[name] == 1 and name not in self._outputs and name in self._maker:
            node = self._maker[name]
            if node.op_type in _MAKERS and node.domain in ("", "ai.onnx"):
                return self._scale(node, _MAKERS[node.op_type], factor, all_of=node.op_type != "Mul")
            if not _commutes(node, factor):
                return False
            name = node.input[0]
        return False

    def _downwards(self, name: str, factor: float) -> bool:
        """Scale the weight of the one reader of a tensor, or of the readers behind it that commute with a factor."""
        while self._reads[name] == 1 and name not in self._outputs:
            (node,) = self._readers[name]
            if node.op_type in _READERS and node.domain in ("", "ai.onnx"):
                first = node.op_type == "Mul" or node.input[0] == name
                return first and self._scale(node, _READERS[node.op_type], factor, all_of=False)
            if not _commutes(node, factor) or node.input[0] != name:
                return False
            name = node.output[0]
        return False

    def _scale(self, node: onnx.NodeProto, positions: tuple[int, ...], factor: float, *, all_of: bool) -> bool:
        """Multiply the weights at these inputs of a node, all of them or the first that is one; False where none is."""
        names = [node.input[p] for p in positions if p < len(node.input) and node.input[p]]
        own = [name for name in names if self._is_own(name)]
        if not own or (all_of and len(own) < len(names)):
            return False
        for name in own if all_of else own[:1]:
            tensor = self._weights[name]
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), name))
        return True

    def _is_own(self, name: str) -> bool:
        """Is this a weight that one input of one node reads."""
        return (
            name in self._weights
            and self._weights[name].data_type in _TYPES
            and self._reads[name] == 1
            and name not in self._outputs
        )

    def _bypass(self, product: onnx.NodeProto, data: str) -> None:
        """Let what reads a product read its operand."""
        gone = product.output[0]
        for reader in self._readers.pop(gone, []):
            for position, name in enumerate(reader.input):
                if name == gone:
                    reader.input[position] = data
            self._readers.setdefault(data, []).append(reader)
        self._readers[data] = [node for node in self._readers[data] if node is not product]
        self._reads[data] += self._reads.pop(gone, 0) - 1
        self._reads[next(name for name in product.input if name != data)] -= 1
        self._gone.add(gone)


def _commutes(node: onnx.NodeProto, factor: float) -> bool:
    """Is a factor before an operator one behind it."""
    if node.domain not in ("", "ai.onnx") or sum(map(bool, node.output)) != 1:
        return False
    return node.op_type in _LINEAR or (node.op_type in _POSITIVE and factor > 0)
