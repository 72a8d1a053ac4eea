"""One node of the network, as the function that writes it sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.export.code import Call, Code, Device, Expression, Lit, Member, Own, Ref, Step, Stored, Value, call
from onnx_asgnas.export.dtypes import torch_dtype
from onnx_asgnas.graph import TraceGraph

_FEW = 16
"""Whole numbers up to so many are written into the code."""


class Site:
    """A node, its inputs as expressions, and what is known of them.

    `host` names the tensors that are Python numbers or tuples in the code: lengths, and what is computed from them.
    """

    def __init__(self, graph: TraceGraph, position: int, scope: tuple[str, ...], host: Mapping[str, int]) -> None:
        self.graph = graph
        self.position = position
        self.node = graph.nodes[position]
        self.scope = scope
        self.host = host
        self.absorbed: set[int] = set()
        """Nodes that this one is written together with."""

    @property
    def version(self) -> int:
        """The version of the operator set that this node belongs to."""
        return self.graph.opsets.get("" if self.node.domain == "ai.onnx" else self.node.domain, 1)

    @cached_property
    def _attributes(self) -> dict[str, onnx.AttributeProto]:
        return {a.name: a for a in self.node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, `default` where it is not given; text is decoded."""
        found = self._attributes.get(name)
        value = default if found is None else onnx.helper.get_attribute_value(found)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, at: int) -> bool:
        """Is there an input at this position."""
        return at < len(self.node.input) and bool(self.node.input[at])

    def shape(self, at: int) -> tuple[int | None, ...] | None:
        """The shape of an input, None for an open dimension; None at unknown rank."""
        return self.graph.shape(self.node.input[at])

    def rank(self, at: int) -> int:
        """The rank of an input; refused where it is unknown."""
        shape = self.shape(at)
        if shape is None:
            raise self.refused("the rank of its input is not known")
        return len(shape)

    def axis(self, at: int = 0, name: str = "axis", default: int = 0) -> int:
        """An attribute that is an axis of an input, counted from the front."""
        return int(self.attribute(name, default)) % max(self.rank(at), 1)

    def dtype(self, at: int) -> int:
        """The ONNX element type of an input."""
        return self.graph.dtype(self.node.input[at])

    def is_whole(self, at: int) -> bool:
        """Are the values of an input integers."""
        return self.dtype(at) in _WHOLE

    def array(self, at: int) -> NDArray[Any] | None:
        """The values of an input that is an initializer."""
        name = self.node.input[at] if self.has(at) else ""
        return self.graph.array(name) if name in self.graph.initializers else None

    def numbers(self, at: int) -> list[int] | None:
        """The whole numbers of an input that is a known constant."""
        if not self.has(at):
            return None
        value = self.graph.constant(self.node.input[at])
        if value is None and self.node.input[at] in self.graph.initializers:
            value = self.array(at)
        return None if value is None else [int(each) for each in np.asarray(value).reshape(-1)]

    def axes(self, at: int = 1) -> list[int] | None:
        """The axes that an attribute or an input gives, counted from the front; None where neither is there."""
        axes = self.attribute("axes")
        if axes is None:
            if not self.has(at):
                return None
            axes = self.numbers(at)
            if axes is None:
                raise self.refused("its axes are computed")
        return [int(axis) for axis in axes]

    def is_own(self, at: int) -> bool:
        """Is the input an initializer that nothing but this reads."""
        name = self.node.input[at] if self.has(at) else ""
        return name in self.graph.initializers and len(self.graph.consumers.get(name, ())) == 1

    def __getitem__(self, at: int) -> Expression:
        """An input as a tensor."""
        name = self.node.input[at]
        if name in self.host:
            return call("torch.tensor", Ref(name), device=Device())
        return Ref(name)

    def operand(self, at: int) -> Expression:
        """An input of an arithmetic operator: a single number is written as such, anything else is a tensor."""
        number = self.number(at)
        return self[at] if number is None else number

    def number(self, at: int) -> Lit | None:
        """A constant with a single value and no axis as a literal, if it is one and is not trained."""
        array = self.array(at)
        if array is None or array.size != 1 or array.ndim > 0 or self.node.input[at] in self.graph.gates:
            return None
        value = array.reshape(-1)[0]
        return Lit(_plain(value), "value") if value.dtype.kind in "fiub" and np.isfinite(value) else None

    def is_host(self, at: int) -> bool:
        """Is an input a Python number or a tuple, or a small constant that can be written as one."""
        if not self.has(at):
            return False
        name = self.node.input[at]
        return name in self.host or self._small(at) is not None

    def host_rank(self, at: int) -> int:
        """0 for a number, 1 for a tuple."""
        name = self.node.input[at]
        return self.host[name] if name in self.host else np.ndim(self.array(at))  # type: ignore[arg-type]

    def lengths(self, at: int, hint: str = "shape") -> Expression:
        """An input as a Python number or a tuple of numbers."""
        name = self.node.input[at]
        if name in self.host:
            return Ref(name)
        small = self._small(at)
        if small is not None:
            return Lit(small, hint)
        array = self.numbers(at)
        if array is not None:
            return Lit(tuple(array) if self.rank(at) else array[0], hint)
        return method_tolist(self[at])

    def items(self, at: int) -> tuple[Expression, ...]:
        """The numbers of a host input one by one."""
        small = self._small(at)
        if small is not None:
            return tuple(Lit(v, "size") for v in (small if isinstance(small, tuple) else (small,)))
        name = self.node.input[at]
        if self.host[name] == 0:
            return (Ref(name),)
        shape = self.graph.shape(name)
        if shape is None or shape[0] is None:
            raise self.refused("it works on a list of lengths of unknown size")
        return tuple(Code("{}[%d]" % i, (Ref(name),)) for i in range(shape[0]))  # noqa: UP031

    def _small(self, at: int) -> Value:
        array = self.array(at)
        if array is None or array.dtype.kind not in "iu" or array.ndim > 1 or array.size > _FEW:
            return None
        values = tuple(int(v) for v in array.reshape(-1))
        return values if array.ndim else values[0]

    def sole_reader(self) -> int | None:
        """The one node that reads the first output, where nothing else does."""
        name = self.node.output[0]
        readers = self.graph.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and not self.graph.is_output(name) else None

    def step(self, code: Expression, *, module: Expression | None = None, rank: int | None = None) -> Step:
        """The line that gives this node's outputs; `rank` is given where they are Python numbers."""
        data = self.node.input[0] if self.node.input and self.node.input[0] not in self.host else ""
        return Step(tuple(self.node.output), code, self.scope, module, data, rank)

    def layer(self, make: Call, tensors: Mapping[str, Stored], *data: Expression, named: int | str = 1) -> Step:
        """A line that calls a submodule on the data; it is named after an initializer, given or at an input."""
        initializer = self.node.input[named] if isinstance(named, int) else named
        own = Own(Member(owner_path(initializer, self.scope, self.node.op_type), make, tensors))
        alone = data[0].tensor if len(data) == 1 and isinstance(data[0], Ref) else ""
        return replace(self.step(Call(own, data)), module=own if alone else None, data=alone)

    def refused(self, reason: str) -> UnsupportedOperatorError:
        """The error for a form of the operator that cannot be written."""
        name = self.node.op_type
        return UnsupportedOperatorError(
            f"{name} {self.node.name!r} cannot be written as PyTorch code: {reason}",
            fix="Run the network in onnxruntime, or train it as an OnnxModule.",
            op_type=name,
            node=self.node.name,
        )


def method_tolist(data: Expression) -> Call:
    """The values of a tensor as Python numbers."""
    return Call(Code("{}.tolist", (data,)), ())


def owner_path(initializer: str, scope: tuple[str, ...], op_type: str) -> tuple[str, ...]:
    """What a submodule is called: what owns its weight in the source, else the scope, else its operator."""
    parts = tuple(initializer.split("."))
    if len(parts) > 1 and all(part.isidentifier() or part.isdigit() for part in parts):
        return parts[:-1]
    return scope or (op_type.lower(),)


def tuple_or_number(items: Sequence[int], hint: str, default: Value = "") -> Lit:
    """A tuple as PyTorch takes it: one number where all are equal."""
    return Lit(int(items[0]) if len(set(items)) == 1 else tuple(map(int, items)), hint, default)


def dtype(kind: int) -> Code:
    """A torch.dtype."""
    return Code(f"torch.{torch_dtype(kind)}")


def _plain(value: Any) -> Value:
    """A numpy scalar as a Python number that reads as the same value in its type."""
    if value.dtype.kind == "f":
        short = float(str(value))
        return short if abs(short) <= float(np.finfo(value.dtype).max) else float(value)
    return bool(value) if value.dtype.kind == "b" else int(value)


_WHOLE = frozenset(
    {
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT16,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.UINT16,
        onnx.TensorProto.UINT32,
        onnx.TensorProto.UINT64,
    }
)
