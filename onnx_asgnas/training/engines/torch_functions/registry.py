"""The torch functions by operator, and what a function is made from: one node of a training graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_asgnas.graph.nodes import is_standard

Tensor: TypeAlias = torch.Tensor
Compute: TypeAlias = "Callable[..., Tensor | Sequence[Tensor | None]]"
"""Takes the node's inputs in order, None for those left out, and gives its outputs: one tensor, or one for each."""
Builder: TypeAlias = "Callable[[Operator], Compute]"

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
}
"""ONNX's element types that torch has."""


class Operator:
    """One node: its attributes, which inputs are there, and the values of those that are constants.

    `floats` is what float32 stands for: float64 where gradients are wanted in double precision.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        constants: Mapping[str, NDArray[Any]],
        *,
        floats: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.node = node
        self.device = device or torch.device("cpu")
        self._floats = floats
        self._constants = constants
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, text decoded."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, position: int) -> bool:
        """Is this input given."""
        return len(self.node.input) > position and bool(self.node.input[position])

    def wants(self, position: int) -> bool:
        """Is this output read, as far as the node says."""
        return len(self.node.output) > position and bool(self.node.output[position])

    def constant(self, position: int) -> NDArray[Any] | None:
        """The value of an input that is the same in every run; None for any other."""
        return self._constants.get(self.node.input[position]) if self.has(position) else None

    def number(self, position: int) -> float | int | bool | None:
        """The value of an input that is one constant number; None for any other."""
        value = self.constant(position)
        if value is None or value.size != 1:
            return None
        single: float | int | bool = value.reshape(()).item()
        return single

    def integers(self, position: int) -> Callable[[Tensor | None], list[int]]:
        """A function from this input to its values, flat; it looks at the tensor only where that is no constant.

        An input that is not given has none.
        """
        if not self.has(position):
            return lambda _: []
        value = self.constant(position)
        if value is not None:
            known = [int(entry) for entry in value.reshape(-1)]
            return lambda _: known
        return integers_of

    def dtype(self, kind: int) -> torch.dtype:
        """The torch type of an ONNX element type."""
        dtype = DTYPES[kind]
        return self._floats if dtype == torch.float32 else dtype

    def tensor(self, value: NDArray[Any]) -> Tensor:
        """A constant tensor, where the network is computed."""
        made = torch.from_numpy(np.array(value))
        return made.to(self.device, self._floats if made.dtype == torch.float32 else made.dtype)


def integers_of(tensor: Tensor | None) -> list[int]:
    """The values of an integer tensor, flat."""
    assert tensor is not None
    return [int(value) for value in tensor.reshape(-1).tolist()]


class Function:
    """How one operator is computed.

    `unless` says for which forms of the operator there is no function. `host` are the positions of inputs whose values
    are read as numbers (shapes, axes): they stay on the CPU. A function `of_host` computes shapes too: it gives a
    tensor on the CPU where all of its inputs are there.
    """

    def __init__(
        self, build: Builder, unless: Callable[[onnx.NodeProto], bool], host: Collection[int], of_host: bool
    ) -> None:
        self.build = build
        self.unless = unless
        self.host = frozenset(host)
        self.of_host = of_host


TABLE: dict[tuple[str, str], Function] = {}
"""The functions by domain ("" for the standard) and operator."""


def never(node: onnx.NodeProto) -> bool:
    """Of no node."""
    return False


def function(
    *op_types: str,
    domain: str = "",
    unless: Callable[[onnx.NodeProto], bool] = never,
    host: Collection[int] = (),
    of_host: bool = False,
) -> Callable[[Builder], Builder]:
    """Register the builder of a function for these operators; see `Function`."""

    def register(build: Builder) -> Builder:
        for op_type in op_types:
            TABLE[domain, op_type] = Function(build, unless, host, of_host)
        return build

    return register


def direct(functions: Mapping[str, Compute], *, of_host: bool = False) -> None:
    """Register operators without attributes that are a torch function as they stand."""
    for op_type, compute in functions.items():
        TABLE["", op_type] = Function(_always(compute), never, (), of_host)


def _always(compute: Compute) -> Builder:
    return lambda _: compute


def function_of(node: onnx.NodeProto) -> Function | None:
    """The function of a node; None where there is none, or none of this form."""
    found = TABLE.get(("" if is_standard(node) else node.domain, node.op_type))
    return None if found is None or found.unless(node) else found


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute of a node, text decoded."""
    found = next((a for a in node.attribute if a.name == name), None)
    value = default if found is None else helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def given(node: onnx.NodeProto, position: int) -> bool:
    """Has a node this input."""
    return len(node.input) > position and bool(node.input[position])
