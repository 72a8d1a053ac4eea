"""What a network takes: names, types and sizes of its inputs, and a check of what it is given against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import TensorProto

from onnx_asgnas.errors import DataError, ModelError

_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input: a size is a number, a name that stands for the same number wherever it occurs, or None for any."""

    name: str
    dtype: torch.dtype
    sizes: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        return f"{self.name}: {_describe(self.dtype, self.sizes)}"

    def fits(self, tensor: torch.Tensor, named: dict[str, int]) -> bool:
        """Does the tensor have this type and shape; the numbers found for named sizes go into `named`.

        Where the model says half precision, which is computed in float32, float32 fits too.
        """
        half = self.dtype in (torch.float16, torch.bfloat16) and tensor.dtype == torch.float32
        if (tensor.dtype != self.dtype and not half) or (self.sizes is not None and tensor.dim() != len(self.sizes)):
            return False
        for size, expected in zip(tensor.shape, self.sizes or (), strict=False):
            want = named.setdefault(expected, size) if isinstance(expected, str) else expected
            if want is not None and size != want:
                return False
        return True


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs of a model in normal form; raises ModelError for one that is no tensor of a type that torch has."""
    return tuple(_spec(value) for value in model.graph.input)


def bind_inputs(
    specs: Sequence[InputSpec], args: Sequence[torch.Tensor], kwargs: Mapping[str, torch.Tensor]
) -> list[torch.Tensor]:
    """The inputs in order and contiguous; raises DataError for one that is missing, unknown, or does not fit."""
    given = dict(zip((spec.name for spec in specs), args, strict=False))
    unknown = [name for name in kwargs if name in given or name not in {spec.name for spec in specs}]
    missing = [spec.name for spec in specs if spec.name not in given and spec.name not in kwargs]
    if unknown or missing or len(args) > len(specs):
        what = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(unknown)} not expected"] * bool(
            unknown
        )
        raise DataError(
            f"the network takes {_count(len(specs), 'input')}: {'; '.join(what) or f'{len(args)} were given'}",
            fix=f"It takes {', '.join(map(str, specs))}.",
            missing=missing,
            unknown=unknown,
        )
    given.update(kwargs)
    named: dict[str, int] = {}
    for spec in specs:
        tensor = given[spec.name]
        if not isinstance(tensor, torch.Tensor):
            raise DataError(
                f"input {spec.name!r} is {type(tensor).__name__}, and not a torch.Tensor",
                fix="Use torch.from_numpy or torch.as_tensor.",
                input=spec.name,
            )
        if not spec.fits(tensor, named):
            raise _misfit(spec, tensor, named)
    return [given[spec.name].contiguous() for spec in specs]


def _misfit(spec: InputSpec, tensor: torch.Tensor, named: Mapping[str, int]) -> DataError:
    expected = _describe(spec.dtype, spec.sizes)
    bound = [f"{size} is {named[size]}" for size in spec.sizes or () if isinstance(size, str) and size in named]
    fix = "Cast or reshape the data."
    if spec.sizes and spec.sizes[0] == 1 and tensor.dim() == len(spec.sizes) and tensor.shape[0] != 1:
        fix = "The batch is fixed to 1 in the model: export it with an open (dynamic) batch dimension."
    return DataError(
        f"input {spec.name!r} is {_describe(tensor.dtype, tuple(tensor.shape))}, the network expects {expected}"
        + (f" ({', '.join(bound)})" if bound else ""),
        fix=fix,
        input=spec.name,
        given=tuple(tensor.shape),
        expected=spec.sizes,
    )


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in _DTYPES:
        what = TensorProto.DataType.Name(kind.elem_type).lower() if value.type.HasField("tensor_type") else "no tensor"
        raise ModelError(
            f"the model's input {value.name!r} is {what}, which the training runtime does not take",
            fix=f"Export the model with one of: {', '.join(_name(dtype) for dtype in _DTYPES.values())}.",
            input=value.name,
        )
    sizes = None
    if kind.HasField("shape"):
        sizes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)
    return InputSpec(value.name, _DTYPES[kind.elem_type], sizes)


def _describe(dtype: torch.dtype, sizes: Sequence[int | str | None] | None) -> str:
    shape = "" if sizes is None else "[" + ",".join("?" if size is None else str(size) for size in sizes) + "]"
    return _name(dtype) + shape


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
