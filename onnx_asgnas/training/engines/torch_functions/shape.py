"""Shapes, ranges and constants: what networks compute of the lengths of their tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper

from onnx_asgnas.training.engines.torch_functions.registry import DTYPES, Compute, Operator, Tensor, function


@function("Shape", of_host=True)
def shape(op: Operator) -> Compute:
    """The lengths of a tensor, or those of some of its axes; on the CPU, wherever the tensor is."""
    start, end = op.attribute("start", 0), op.attribute("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@function("Size", of_host=True)
def size(op: Operator) -> Compute:
    """How many elements a tensor has; on the CPU, wherever the tensor is."""
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64)


@function("ConstantOfShape", host=(0,), of_host=True)
def constant_of_shape(op: Operator) -> Compute:
    """A tensor of one value."""
    given = op.attribute("value")
    value = np.zeros(1, np.float32) if given is None else numpy_helper.to_array(given)
    kind = TensorProto.FLOAT if given is None else given.data_type
    dtype, number, shape_of = op.dtype(kind), value.reshape(()).item(), op.integers(0)
    return lambda shape: torch.full(shape_of(shape), number, dtype=dtype, device=op.device)


@function("Range", host=(0, 1, 2), of_host=True)
def arrange(op: Operator) -> Compute:
    """Equally spaced numbers from a start to before a limit."""

    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        numbers: list[Any] = [t.item() for t in (start, limit, delta)]
        count = max(int(np.ceil((numbers[1] - numbers[0]) / numbers[2])), 0)
        places: Tensor = torch.arange(count, dtype=start.dtype, device=op.device)
        result: Tensor = places * numbers[2] + numbers[0]
        return result

    return run


@function("EyeLike")
def eye_like(op: Operator) -> Compute:
    """Ones on a diagonal."""
    kind, above = op.attribute("dtype"), op.attribute("k", 0)

    def run(x: Tensor) -> Tensor:
        dtype = x.dtype if kind is None else op.dtype(kind)
        ones = torch.ones(x.shape, dtype=dtype, device=x.device)
        return ones.triu(above).tril(above)

    return run


@function(
    "Constant", unless=lambda node: not any(a.name == "value" and a.t.data_type in DTYPES for a in node.attribute)
)
def constant(op: Operator) -> Compute:
    """The same tensor in every run."""
    value = op.tensor(numpy_helper.to_array(op.attribute("value")))
    return lambda: value


@function("NonZero")
def non_zero(op: Operator) -> Compute:
    """The places of values that are not zero: [rank, count]."""
    return lambda x: torch.nonzero(x).t().contiguous()
