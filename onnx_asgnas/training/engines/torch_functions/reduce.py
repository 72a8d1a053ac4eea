"""Reductions, sums along an axis, and the largest values."""

from __future__ import annotations

from collections.abc import Callable

import torch

from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, function


def _over_axes(op: Operator, compute: Callable[[Tensor, list[int], bool], Tensor]) -> Compute:
    """A reduction over the axes of the second input: over all of them where none is given."""
    keep, nothing = bool(op.attribute("keepdims", 1)), bool(op.attribute("noop_with_empty_axes", 0))
    axes_of = op.integers(1)

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = axes_of(given)
        if not axes and nothing:
            return x
        return compute(x, axes or list(range(x.dim())), keep)

    return run


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    return x.double().mean(axes, keepdim=keep).to(x.dtype)


def _one_axis(x: Tensor, axes: list[int], keep: bool, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """What a function of the last axis gives, these axes being one and the last."""
    axes = sorted(axis % x.dim() for axis in axes) if x.dim() else []
    rest = [axis for axis in range(x.dim()) if axis not in axes]
    sizes = [x.shape[axis] for axis in rest]
    result = compute(x.permute(*rest, *axes).reshape(*sizes, -1))
    return result.reshape([1 if at in axes else size for at, size in enumerate(x.shape)]) if keep else result


def _extreme(largest: bool) -> Callable[[Tensor, list[int], bool], Tensor]:
    """The largest or smallest; the first of several that are equal takes the gradient."""

    def last(x: Tensor) -> Tensor:
        if x.dtype == torch.bool:
            return x.any(-1) if largest else x.all(-1)
        if x.shape[-1] == 0:
            return x.new_full(x.shape[:-1], _lowest(x.dtype, largest))
        values: Tensor = (x.max(-1) if largest else x.min(-1)).values
        return values

    return lambda x, axes, keep: _one_axis(x, axes, keep, last)


def _lowest(dtype: torch.dtype, largest: bool) -> float | int:
    """The largest or smallest value of nothing."""
    if dtype.is_floating_point:
        return float("-inf") if largest else float("inf")
    return torch.iinfo(dtype).min if largest else torch.iinfo(dtype).max


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.is_floating_point():
        return x.double().square().sum(axes, keepdim=keep).sqrt().to(x.dtype)
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
    return norm


_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": _norm,
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": _extreme(True),
    "ReduceMean": _mean,
    "ReduceMin": _extreme(False),
    "ReduceProd": lambda x, axes, keep: _one_axis(x, axes, keep, lambda y: y.prod(-1, dtype=x.dtype)),
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x.square(), axes, keep),
}


@function(*_REDUCTIONS, host=(1,), of_host=True)
def reduction(op: Operator) -> Compute:
    """A sum, mean, norm or extreme over axes."""
    return _over_axes(op, _REDUCTIONS[op.node.op_type])


@function("ArgMax", "ArgMin")
def argument(op: Operator) -> Compute:
    """Where the largest or smallest value of an axis is: the first place, or with select_last_index the last one."""
    axis, keep = op.attribute("axis", 0), bool(op.attribute("keepdims", 1))
    last, smallest = op.attribute("select_last_index", 0), op.node.op_type == "ArgMin"

    def places(x: Tensor) -> Tensor:
        return torch.argmin(x, axis, keep) if smallest else torch.argmax(x, axis, keep)

    def run(x: Tensor) -> Tensor:
        return x.shape[axis] - 1 - places(x.flip(axis)) if last else places(x)

    return run


@function("CumSum", host=(1,))
def cumulative_sum(op: Operator) -> Compute:
    """The sum of all values up to each, of those before it if exclusive, from the end if reverse."""
    exclusive, reverse, axis_of = op.attribute("exclusive", 0), op.attribute("reverse", 0), op.integers(1)

    def run(x: Tensor, given: Tensor) -> Tensor:
        axis = axis_of(given)[0]
        x = x.flip(axis) if reverse else x
        sums = torch.cumsum(x, axis, dtype=x.dtype)
        if exclusive and x.shape[axis]:
            sums = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), sums.narrow(axis, 0, x.shape[axis] - 1)], axis)
        return sums.flip(axis) if reverse else sums

    return run


@function("TopK", host=(1,))
def top_k(op: Operator) -> Compute:
    """The k largest or smallest values of an axis, and where they are."""
    axis, largest = op.attribute("axis", -1), bool(op.attribute("largest", 1))
    k_of = op.integers(1)

    def run(x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # Of equal values the first ones count, which torch.topk does not promise.
        values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
        count = k_of(k)[0]
        return values.narrow(axis, 0, count), places.narrow(axis, 0, count)

    return run
