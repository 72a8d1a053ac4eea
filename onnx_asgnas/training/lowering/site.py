"""One node on the gradient path, and the expressions that are written in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_asgnas.errors import UnsupportedOperatorError

if TYPE_CHECKING:
    from onnx_asgnas.training.lowering.rewriting import Rewriting

Operand: TypeAlias = "Value | NDArray[Any] | float | int | None"
Dim: TypeAlias = "int | Value"
"""A length: a number, or an int64 tensor of shape [1] where it is open."""


class Site:
    """A node that is to be written in other operators. What it emits goes into the graph in order."""

    def __init__(self, graph: Rewriting, node: onnx.NodeProto) -> None:
        self.graph = graph
        self.node = node
        self._stands = False

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, `default` where it is not given; strings are str."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, position: int) -> bool:
        """Is there an input at this position."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def wants(self, position: int) -> bool:
        """Is the output at this position read, as far as the node says."""
        return position < len(self.node.output) and bool(self.node.output[position])

    def input(self, position: int = 0) -> Value:
        """The input at this position, which must be there."""
        return Value(self, self.node.input[position])

    def inputs(self) -> list[Value]:
        """All inputs of a variadic operator."""
        return [Value(self, name) for name in self.node.input]

    def output(self, position: int = 0) -> Value:
        """What is known of an output: only its shape may be asked for."""
        return Value(self, self.node.output[position])

    def fixed(self, position: int, what: str) -> NDArray[Any]:
        """The value of an input that is constant; refuses the node where the network computes it."""
        value = self.input(position).constant
        if value is None:
            raise self.refusal(f"its {what} is computed by the network")
        return value

    def fixed_axes(self, position: int, rank: int) -> list[int] | None:
        """The axes that an input names, counted from the front; None where it names none."""
        if not self.has(position):
            return None
        return [int(axis) % rank for axis in np.ravel(self.fixed(position, "choice of axes"))]

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """The attribute `axis`, counted from the front."""
        return int(self.attribute(name, default)) % rank

    def op(self, op_type: str, *inputs: Operand, domain: str = "", **attributes: Any) -> Value:
        """Emit an operator of one output. Numbers become constants of the type of the first value."""
        return self.ops(op_type, 1, *inputs, domain=domain, **attributes)[0]

    def ops(
        self, op_type: str, outputs: int | Sequence[bool], *inputs: Operand, domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Emit an operator of so many outputs; a sequence says which of them are wanted, the others have no name."""
        wanted = [True] * outputs if isinstance(outputs, int) else outputs
        like = next((value for value in inputs if isinstance(value, Value)), None)
        names = [self._operand(value, like) for value in inputs]
        while names and not names[-1]:
            names.pop()
        name = self.graph.name(f"{self.node.name}/{op_type}")
        made = [(name if not at else self.graph.name(f"{name}:{at}")) if want else "" for at, want in enumerate(wanted)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.graph.place(helper.make_node(op_type, names, made, name=name, domain=domain, **given))
        return [Value(self, output) for output in made]

    def kept(self, op_type: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Value:
        """Emit an operator in the form that is differentiated: nothing more is asked. Gives its first output."""
        made = self.graph.name(f"{self.node.name}/{op_type}")
        names = [made, *(self.graph.name(f"{made}:{at}") for at in range(1, outputs))]
        given = {key: value for key, value in attributes.items() if value is not None}
        name = made
        if op_type == self.node.op_type and not self._stands:  # it is still the node that a user knows
            name, self._stands = self.node.name, True
        self.graph.keep(helper.make_node(op_type, [x.name for x in inputs], names, name=name, **given))
        return Value(self, made)

    def constant(self, value: NDArray[Any]) -> Value:
        """A constant tensor."""
        return Value(self, self.graph.constant(value))

    def ints(self, *values: int) -> Value:
        """A constant of int64 with one axis."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, like: Value) -> Value:
        """A scalar constant of the type of another value."""
        return self.constant(np.array(value, like.dtype))

    def where(self, condition: Value, yes: Operand, no: Operand) -> Value:
        """One or the other, element by element."""
        like = yes if isinstance(yes, Value) else no
        assert isinstance(like, Value)
        branches = [Value(self, self._operand(branch, like)) for branch in (yes, no)]
        return self.op("Where", condition, *branches)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Values one after another along an axis."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def lengths(self, dims: Sequence[Dim]) -> Value:
        """Lengths as one int64 tensor; neighbours that are numbers become one constant."""
        parts: list[list[int] | Value] = []
        for dim in dims:
            if isinstance(dim, Value):
                parts.append(dim)
            elif parts and isinstance(parts[-1], list):
                parts[-1].append(dim)
            else:
                parts.append([dim])
        values = [part if isinstance(part, Value) else self.ints(*part) for part in parts]
        return self.concat(values, 0) if values else self.ints()

    def filled(self, value: float, dims: Sequence[Dim], like: Value) -> Value:
        """A tensor of one number, that nothing is differentiated through."""
        if all(isinstance(dim, int) for dim in dims):
            return self.constant(np.full([int(d) for d in dims if isinstance(d, int)], value, like.dtype))
        tensor = helper.make_tensor("value", helper.np_dtype_to_tensor_dtype(np.dtype(like.dtype)), [1], [value])
        return self.op("ConstantOfShape", self.lengths(dims), value=tensor)

    def range(self, length: Dim) -> Value:
        """0, 1, … length - 1 as int64."""
        if isinstance(length, int):
            return self.constant(np.arange(length))
        zero, one = (self.constant(np.array(v, np.int64)) for v in (0, 1))
        return self.op("Range", zero, length.squeeze(0), one)

    def refusal(self, why: str) -> UnsupportedOperatorError:
        """The error for a form of the operator that is not handled."""
        origin = self.graph.origin or self.node
        inner = "" if origin is self.node or origin.op_type == self.node.op_type else f" (in it, {self.node.op_type})"
        return UnsupportedOperatorError(
            f"{origin.op_type} {origin.name!r} cannot be lowered for training{inner}: {why}",
            op_type=origin.op_type,
            node=origin.name,
        )

    def _operand(self, value: Operand, like: Value | None) -> str:
        if value is None:
            return ""
        if isinstance(value, Value):
            return value.name
        if isinstance(value, np.ndarray):
            return self.graph.constant(value)
        assert like is not None
        return self.number(value, like).name


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph in the making, with the arithmetic that rewrites are written in."""

    site: Site
    name: str

    @property
    def shape(self) -> list[int | None]:
        """Its sizes, None where open; refuses the node where not even the rank is known."""
        shape = self.site.graph.shapes.shape(self.name)
        if shape is None:
            raise self.site.refusal(f"the rank of {self.name!r} is not known")
        return list(shape)

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def has_rank(self) -> bool:
        """Is its rank known."""
        return self.site.graph.shapes.shape(self.name) is not None

    @property
    def dtype(self) -> Any:
        """Its numpy type; float32 where it is not known."""
        kind = self.site.graph.shapes.dtype(self.name)
        return helper.tensor_dtype_to_np_dtype(kind or TensorProto.FLOAT)

    @property
    def constant(self) -> NDArray[Any] | None:
        """Its value where it is a constant."""
        return self.site.graph.constant_of(self.name)

    def dim(self, axis: int) -> Dim:
        """Its length along an axis."""
        shape = self.shape
        length = shape[axis]
        axis %= len(shape)
        return self.site.op("Shape", self, start=axis, end=axis + 1) if length is None else length

    def dims(self, start: int = 0, end: int | None = None) -> list[Dim]:
        """Its lengths along these axes."""
        return [self.dim(axis) for axis in range(self.rank)[start:end]]

    def fixed_size(self, axis: int, what: str) -> int:
        """Its length along an axis; refuses the node where it is open."""
        length = self.shape[axis]
        if length is None:
            raise self.site.refusal(f"its {what} needs the size of axis {axis % self.rank}, which is open")
        return length

    def __add__(self, other: Operand) -> Value:
        return self.site.op("Add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.site.op("Sub", self, other)

    def __mul__(self, other: Operand) -> Value:
        return self.site.op("Mul", self, other)

    def __truediv__(self, other: Operand) -> Value:
        return self.site.op("Div", self, other)

    def __matmul__(self, other: Operand) -> Value:
        return self.site.op("MatMul", self, other)

    def __radd__(self, other: float) -> Value:
        return self.site.op("Add", self.site.number(other, self), self)

    def __rsub__(self, other: float) -> Value:
        return self.site.op("Sub", self.site.number(other, self), self)

    def __rmul__(self, other: float) -> Value:
        return self.site.op("Mul", self.site.number(other, self), self)

    def __rtruediv__(self, other: float) -> Value:
        return self.site.op("Div", self.site.number(other, self), self)

    def __rmatmul__(self, other: NDArray[Any]) -> Value:
        return self.site.op("MatMul", self.site.constant(other), self)

    __array_ufunc__ = None  # an array on the left leaves the arithmetic to us

    def __neg__(self) -> Value:
        return self.site.op("Neg", self)

    def __gt__(self, other: Operand) -> Value:
        return self.site.op("Greater", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.site.op("Less", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.site.op("GreaterOrEqual", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.site.op("LessOrEqual", self, other)

    def equals(self, other: Operand) -> Value:
        """Where it is equal to another, as booleans."""
        return self.site.op("Equal", self, other)

    def detach(self) -> Value:
        """The same value, through which no gradient flows."""
        return self.site.graph.detached(self)

    def cast(self, dtype: Any) -> Value:
        """The same values in another numpy type."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self if self.dtype == dtype else self.site.op("Cast", self, to=kind)

    def exp(self) -> Value:
        """E to its power."""
        return self.site.op("Exp", self)

    def sqrt(self) -> Value:
        """Its square root."""
        return self.site.op("Sqrt", self)

    def sigmoid(self) -> Value:
        """1 / (1 + exp(-x))."""
        return self.site.op("Sigmoid", self)

    def tanh(self) -> Value:
        """Its hyperbolic tangent."""
        return self.site.op("Tanh", self)

    def relu(self) -> Value:
        """It where it is positive, else zero."""
        return self.site.op("Relu", self)

    def softmax(self, axis: int = -1) -> Value:
        """Softmax along one axis."""
        return self.site.op("Softmax", self, axis=axis)

    def sum(self, axes: Sequence[int], keep: bool = False) -> Value:
        """Its sum over these axes."""
        return self.site.op("ReduceSum", self, self.site.ints(*axes), keepdims=int(keep)) if axes else self

    def mean(self, axes: Sequence[int], keep: bool = True) -> Value:
        """Its mean over these axes, which stay as axes of one."""
        return self.site.op("ReduceMean", self, self.site.ints(*axes), keepdims=int(keep)) if axes else self

    def transpose(self, *order: int) -> Value:
        """Its axes in this order."""
        return self if list(order) == sorted(order) else self.site.op("Transpose", self, perm=list(order))

    def swap(self, one: int, other: int) -> Value:
        """Two axes exchanged."""
        order = list(range(self.rank))
        order[one], order[other] = order[other], order[one]
        return self.transpose(*order)

    def reshape(self, *dims: Dim) -> Value:
        """Other axes over the same values; one length may be -1."""
        opened = [at for at, dim in enumerate(dims) if isinstance(dim, Value)]
        if len(opened) == 1 and -1 not in [dim for dim in dims if isinstance(dim, int)]:
            dims = tuple(-1 if at == opened[0] else dim for at, dim in enumerate(dims))
        return self.site.op("Reshape", self, self.site.lengths(dims))

    def unsqueeze(self, *axes: int) -> Value:
        """With axes of one put in."""
        return self.site.op("Unsqueeze", self, self.site.ints(*axes)) if axes else self

    def squeeze(self, *axes: int) -> Value:
        """Without these axes of one."""
        return self.site.op("Squeeze", self, self.site.ints(*axes)) if axes else self

    def expand(self, *dims: Dim) -> Value:
        """Repeated along axes of one."""
        return self.site.op("Expand", self, self.site.lengths(dims))

    def slice(self, axis: int, start: Dim, end: Dim, step: int = 1) -> Value:
        """Its part between two places of an axis."""
        bounds = [place if isinstance(place, Value) else self.site.ints(place) for place in (start, end)]
        steps = [self.site.ints(step)] if step != 1 else []
        return self.site.op("Slice", self, *bounds, self.site.ints(axis), *steps)

    def split(self, axis: int, sizes: Sequence[int]) -> list[Value]:
        """Its parts of these sizes, one after another."""
        ends = np.cumsum(sizes).tolist()
        return [self.slice(axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]

    def gather(self, index: Value | NDArray[Any], axis: int) -> Value:
        """Its entries at these places of an axis."""
        return self.site.op("Gather", self, index, axis=axis)
