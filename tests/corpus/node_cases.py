"""ONNX's own node tests, as they are and as a layer of a small network.

Each case is one operator (or its expansion into others) with inputs and outputs. As it stands no channel of it can
leave, because all that it reads is an input. `wrapped` puts it between dense layers with random weights, so that
channel labels reach the operator and something reads what it makes of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, Any]

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
NEW, OLD = 8, 7
"""The least IR version with initializers that are no inputs, and the oldest operator set whose Add broadcasts."""
NOT_DATA = ("scales",)
"""Float inputs that say how large an output is: with other values the case would be another one."""
LARGEST = 4096
"""Elements of the largest tensor that a flat reader takes up."""


@dataclass(frozen=True, slots=True)
class NodeCase:
    """One node test: its model, its inputs by name and its outputs in order."""

    name: str
    model: onnx.ModelProto
    inputs: Arrays
    outputs: list[Any]

    @property
    def operators(self) -> tuple[str, ...]:
        """The types of its operators, each once."""
        return tuple(dict.fromkeys(node.op_type for node in self.model.graph.node))


@cache
def node_cases() -> tuple[NodeCase, ...]:
    """All node tests of the installed onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of divisions by zero, in what it computes as expected
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return tuple(NodeCase(t.name, t.model, _inputs(t), list(t.data_sets[0][1])) for t in found)


def _inputs(test: Any) -> Arrays:
    return dict(zip((value.name for value in test.model.graph.input), test.data_sets[0][0], strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How a case is wrapped.

    `axis` carries the channels; `flat` reads all of an output at once and not along that axis; `every` gives each
    float input a layer and not only the first; `fed` leaves what gets no layer an input; `open_batch` names the first
    dimension instead of fixing it.
    """

    axis: int = 1
    flat: bool = False
    every: bool = False
    fed: bool = False
    open_batch: bool = False


STYLES = {
    "along 1": Style(),
    "along 1, flat": Style(flat=True),
    "along the last": Style(axis=-1),
    "along the last, flat": Style(axis=-1, flat=True),
    "along 0, flat": Style(axis=0, flat=True),
    "every input along 1": Style(every=True),
    "every input along the last, flat": Style(axis=-1, every=True, flat=True),
    "the others fed": Style(fed=True),
    "open batch": Style(open_batch=True),
}


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A case between dense layers, and two sets of inputs for it."""

    model: onnx.ModelProto
    feeds: tuple[Arrays, ...]


def wrapped(case: NodeCase, style: Style, seed: int = 0) -> Wrapped | None:
    """The case between dense layers; None where no input of it can have one."""
    versions = {o.domain: o.version for o in case.model.opset_import}
    if versions.setdefault("", 17) < OLD or case.model.graph.initializer or case.model.functions:
        return None
    builder = _Builder(case, style, np.random.default_rng(seed), versions)
    return builder.build()


@dataclass(slots=True)
class _Builder:
    case: NodeCase
    style: Style
    random: np.random.Generator
    versions: dict[str, int]
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: tuple[Arrays, ...] = field(default_factory=lambda: ({}, {}))

    def build(self) -> Wrapped | None:
        if not self._read_inputs():
            return None
        for value, array in zip(self.case.model.graph.output, self.case.outputs, strict=True):
            self._write_output(value, array)
        nodes = [*self.before, *self.case.model.graph.node, *self.after]
        graph = helper.make_graph(nodes, self.case.name, self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.versions.items()]
        ir_version = max(NEW, helper.find_min_ir_version_for(opsets, ignore_unknown=True))
        return Wrapped(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), self.feeds)

    def _read_inputs(self) -> bool:
        """Is there a layer, and is the case not the same as in a plainer style."""
        layers = 0
        for value in self.case.model.graph.input:
            array = self.case.inputs[value.name]
            kind = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0
            if kind in FLOATS and self._fits(value.name, array) and (self.style.every or not layers):
                self._layer_into(value, np.asarray(array))
                layers += 1
            elif kind and not self.style.fed:
                self.weights.append(_tensor(array, value.name, kind))
            else:
                self.inputs.append(value)
                for feed in self.feeds:
                    feed[value.name] = array
        plain = layers < 2 if self.style.every else self.style.fed and len(self.inputs) < 2
        return layers > 0 and not plain

    def _fits(self, name: str, array: Any) -> bool:
        shape = np.shape(array)
        return (
            name not in NOT_DATA
            and bool(shape)
            and shape[self._axis(len(shape))] > 1
            and 0 not in shape
            and np.size(array) <= LARGEST
        )

    def _axis(self, rank: int) -> int:
        return min(self.style.axis, rank - 1) % rank

    def _layer_into(self, value: onnx.ValueInfoProto, array: NDArray[Any]) -> None:
        """A graph input and a layer that makes what the case reads from it, in the range that the case has."""
        shape, axis, kind = array.shape, self._axis(array.ndim), value.type.tensor_type.elem_type
        given = [*shape[:axis], 3, *shape[axis + 1 :]]
        values = np.asarray(array, np.float64)
        positive = bool(values.min() >= 0)
        kernel = _signed(self.random.normal(0, 1, (shape[axis], 3)), positive)
        bias = _signed(self.random.normal(0, 1, shape[axis]), positive)
        feeds = [_signed(self.random.normal(0, 1, given), positive) for _ in self.feeds]
        largest = max(np.abs(np.tensordot(np.moveaxis(feed, axis, -1), kernel, (-1, 1)) + bias).max() for feed in feeds)
        finite = np.abs(values[np.isfinite(values)])
        scale = min(finite.max(initial=0) or 1, 3) / largest
        for feed, data in zip(self.feeds, feeds, strict=True):
            feed[f"{value.name}_in"] = data.astype(np.float32)
        dims: list[Any] = ["N", *given[1:]] if self.style.open_batch and axis > 0 else given
        self.inputs.append(helper.make_tensor_value_info(f"{value.name}_in", TensorProto.FLOAT, dims))
        made = value.name if kind == TensorProto.FLOAT else f"{value.name}_float"
        self._dense(self.before, f"{value.name}_in", made, len(shape), axis, kernel * scale, bias * scale)
        if kind != TensorProto.FLOAT:
            self.before.append(helper.make_node("Cast", [made], [value.name], to=kind))

    def _write_output(self, value: onnx.ValueInfoProto, array: Any) -> None:
        """What the case gives, read by a layer where it is floats; an output as it is where not."""
        kind = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0
        if (
            kind not in FLOATS
            or not np.ndim(array)
            or not 1 < np.size(array) <= LARGEST
            or not array.shape[self._axis(array.ndim)]
        ):
            self.outputs.append(value)
            return
        name, shape = value.name, np.shape(array)
        if kind != TensorProto.FLOAT:
            self.after.append(helper.make_node("Cast", [name], [f"{name}_read"], to=TensorProto.FLOAT))
            name = f"{name}_read"
        if self.style.flat:
            self.weights.append(numpy_helper.from_array(np.array([1, np.size(array)], np.int64), f"{name}_flat_shape"))
            self.after.append(helper.make_node("Reshape", [name, f"{name}_flat_shape"], [f"{name}_flat"]))
            name, shape = f"{name}_flat", (1, int(np.size(array)))
        axis = self._axis(len(shape)) if not self.style.flat else 1
        kernel = self.random.normal(0, shape[axis] ** -0.5, (2, shape[axis]))
        self._dense(self.after, name, f"{value.name}_out", len(shape), axis, kernel, self.random.normal(0, 1, 2))
        dims: list[Any] = [*shape[:axis], 2, *shape[axis + 1 :]]
        if self.style.open_batch:
            dims = [None if at != axis else n for at, n in enumerate(dims)]
        self.outputs.append(helper.make_tensor_value_info(f"{value.name}_out", TensorProto.FLOAT, dims))

    def _dense(
        self,
        nodes: list[onnx.NodeProto],
        source: str,
        made: str,
        rank: int,
        axis: int,
        kernel: NDArray[np.float64],
        bias: NDArray[np.float64],
    ) -> None:
        """A layer over one axis: Conv over images, Gemm over rows, MatMul elsewhere; kernel is [out, in]."""
        weight, shift = f"{made}_weight", f"{made}_bias"
        if axis == 1 and 3 <= rank <= 5:
            self._weight(weight, kernel.reshape(*kernel.shape, *[1] * (rank - 2)))
            nodes.append(helper.make_node("Conv", [source, weight, shift], [made]))
        elif axis == 1 and rank == 2:
            self._weight(weight, kernel)
            nodes.append(helper.make_node("Gemm", [source, weight, shift], [made], transB=1))
        else:
            self._weight(weight, kernel.T)
            swap = list(range(rank))
            swap[axis], swap[-1] = rank - 1, axis
            names = [source, f"{made}_moved", f"{made}_product", f"{made}_sum", made]
            moved, product, last = (source, names[2], made) if axis == rank - 1 else (names[1], names[2], names[3])
            if axis < rank - 1:
                nodes.append(helper.make_node("Transpose", [source], [moved], perm=swap))
            nodes.append(helper.make_node("MatMul", [moved, weight], [product]))
            nodes.append(helper.make_node("Add", [product, shift], [last]))
            if axis < rank - 1:
                nodes.append(helper.make_node("Transpose", [last], [made], perm=swap))
        self._weight(shift, bias)

    def _weight(self, name: str, values: NDArray[np.float64]) -> None:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))


def _signed(values: NDArray[np.float64], positive: bool) -> NDArray[np.float64]:
    return np.abs(values) if positive else values


def _tensor(array: Any, name: str, kind: int) -> onnx.TensorProto:
    if isinstance(array, onnx.TensorProto):
        tensor = onnx.TensorProto()
        tensor.CopyFrom(array)
        tensor.name = name
        return tensor
    if kind == TensorProto.STRING:
        values = [str(v).encode() for v in np.asarray(array).reshape(-1)]
        return helper.make_tensor(name, kind, np.shape(array), values)
    return numpy_helper.from_array(np.asarray(array), name)


def all_wrapped(style: Style, names: Sequence[str] = ()) -> Iterator[tuple[NodeCase, Wrapped]]:
    """Every case that can be wrapped in this style, expansions last among equals."""
    for case in node_cases():
        if not names or case.name in names:
            found = wrapped(case, style)
            if found is not None:
                yield case, found
