"""Reductions, and cumulative ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Site, Value

_LONGEST_PRODUCT = 64
"""Entries up to which a cumulative product is written out."""


def _axes(site: Site) -> list[int]:
    """The axes that a reduction is over, from the front."""
    rank = site.input().rank
    axes = site.fixed_axes(1, rank)
    if axes:
        return axes
    return [] if site.attribute("noop_with_empty_axes", 0) else list(range(rank))


def _keeps(site: Site) -> bool:
    return bool(site.attribute("keepdims", 1))


@rewrite("ReduceSum")
def rewrite_sum(site: Site) -> Value:
    """ReduceSum with its axes written out, which the gradient needs."""
    return site.input().sum(_axes(site), _keeps(site))


@rewrite("ReduceMean")
def rewrite_mean(site: Site) -> Value:
    """ReduceMean with its axes written out."""
    return site.input().mean(_axes(site), _keeps(site))


@rewrite("ReduceL1")
def rewrite_l1(site: Site) -> Value:
    """The sum of absolute values."""
    return site.op("Abs", site.input()).sum(_axes(site), _keeps(site))


@rewrite("ReduceL2")
def rewrite_l2(site: Site) -> Value:
    """The root of the sum of squares."""
    return norm(site.input(), _axes(site), _keeps(site))


def norm(x: Value, axes: Sequence[int], keep: bool) -> Value:
    """The Euclidean norm, whose gradient at zero is zero as in torch."""
    squares = (x * x).sum(axes, keep)
    positive = squares.detach() > 0.0
    return x.site.where(positive, x.site.where(positive, squares, 1.0).sqrt(), 0.0)


@rewrite("ReduceLogSum")
def rewrite_log_sum(site: Site) -> Value:
    """The logarithm of the sum."""
    return site.op("Log", site.input().sum(_axes(site), _keeps(site)))


@rewrite("ReduceLogSumExp")
def rewrite_log_sum_exp(site: Site) -> Value:
    """The logarithm of the sum of exponentials, shifted by the largest one."""
    x, axes = site.input(), _axes(site)
    if not axes:
        return x
    largest = site.op("ReduceMax", x.detach(), site.ints(*axes))
    largest = site.where(site.op("IsInf", largest), 0.0, largest)
    total = site.op("Log", (x - largest).exp().sum(axes, keep=True)) + largest
    return total if _keeps(site) else total.squeeze(*axes)


@rewrite("ReduceSumSquare")
def rewrite_sum_square(site: Site) -> Value:
    """The sum of squares."""
    x = site.input()
    return (x * x).sum(_axes(site), _keeps(site))


@rewrite("ReduceMax", "ReduceMin")
def rewrite_extreme(site: Site) -> Value:
    """The mean of those entries that are the largest: equal ones share the gradient, as in torch's amax."""
    return extreme(site.input(), _axes(site), _keeps(site), site.node.op_type)


def extreme(x: Value, axes: Sequence[int], keep: bool, op_type: str = "ReduceMax") -> Value:
    """The largest (or smallest) value over these axes."""
    fixed = x.detach()
    if not axes:
        return x
    found = x.site.op(op_type, fixed, x.site.ints(*axes))
    if 0 in x.shape:
        return found if keep else found.squeeze(*axes)
    hit = fixed.equals(found)
    return x.site.where(hit, x, 0.0).sum(axes, keep) / hit.cast(x.dtype).sum(axes, keep)


@rewrite("GlobalMaxPool")
def rewrite_global_max_pool(site: Site) -> Value:
    """GlobalMaxPool: a MaxPool whose window is the image, or where its size is open the largest value."""
    x = site.input()
    spatial = x.shape[2:]
    if None in spatial:
        return extreme(x, range(2, x.rank), keep=True)
    return site.op("MaxPool", x, kernel_shape=spatial)


@rewrite("GlobalAveragePool")
def rewrite_global_average_pool(site: Site) -> Value:
    """The mean over the image."""
    x = site.input()
    return x.mean(range(2, x.rank))


@rewrite("GlobalLpPool")
def rewrite_global_lp_pool(site: Site) -> Value:
    """The p-norm over the image."""
    x = site.input()
    return p_norm(x, site.attribute("p", 2), range(2, x.rank))


def p_norm(x: Value, p: int, axes: Sequence[int]) -> Value:
    """The p-norm over these axes, which stay as axes of one."""
    if p == 1:
        return x.site.op("Abs", x).sum(axes, keep=True)
    if p == 2:
        return norm(x, axes, keep=True)
    powers = x.site.op("Pow", x.site.op("Abs", x), x.site.number(p, x)).sum(axes, keep=True)
    return x.site.op("Pow", powers, x.site.number(1 / p, x))


@rewrite("ReduceProd")
def rewrite_product(site: Site) -> Value:
    """Halves multiplied with one another, so that the gradient is right where factors are zero."""
    x, axes = site.input(), _axes(site)
    rest = [axis for axis in range(x.rank) if axis not in axes]
    count = int(np.prod([x.fixed_size(axis, "product") for axis in axes], dtype=np.int64))
    kept = [1 if axis in axes else x.dim(axis) for axis in range(x.rank) if _keeps(site) or axis not in axes]
    if not count:
        return site.filled(1.0, kept, x)
    factors = x.transpose(*rest, *axes).reshape(*(x.dim(axis) for axis in rest), count)
    last = len(rest)
    while count > 1:
        half = count // 2
        product = factors.slice(last, 0, half) * factors.slice(last, half, 2 * half)
        factors = site.concat([product, factors.slice(last, 2 * half, count)], last) if count % 2 else product
        count = half + count % 2
    return factors.reshape(*kept) if kept else factors.squeeze(last)


@rewrite("CumSum")
def rewrite_cumulative_sum(site: Site) -> Value:
    """A product with a triangle of ones."""
    x = site.input()
    axis = int(np.ravel(site.fixed(1, "axis"))[0]) % x.rank
    exclusive, backward = site.attribute("exclusive", 0), site.attribute("reverse", 0)
    length = x.dim(axis)
    if isinstance(length, int):
        ones = np.triu(np.ones((length, length), x.dtype), exclusive)
        triangle = site.constant(ones.T if backward else ones)
    else:
        places = site.range(length)
        one, other = places.unsqueeze(1), places.unsqueeze(0)
        if backward:
            one, other = other, one
        triangle = (one < other if exclusive else one <= other).cast(x.dtype)
    if x.rank == 1:
        return (x.unsqueeze(0) @ triangle).squeeze(0)
    return (x.swap(axis, x.rank - 1) @ triangle).swap(axis, x.rank - 1)


@rewrite("CumProd")
def rewrite_cumulative_product(site: Site) -> Value:
    """One product after another."""
    x = site.input()
    axis = int(np.ravel(site.fixed(1, "axis"))[0]) % x.rank
    length = x.fixed_size(axis, "cumulative product")
    if length > _LONGEST_PRODUCT:
        raise site.refusal(f"a cumulative product over {length} entries is not written out")
    parts = x.split(axis, [1] * length)
    order = parts[::-1] if site.attribute("reverse", 0) else parts
    if site.attribute("exclusive", 0):
        order = [site.filled(1.0, [*x.dims(0, axis), 1, *x.dims(axis + 1)], x), *order[:-1]]
    made = [order[0]]
    for factor in order[1:]:
        made.append(made[-1] * factor)
    return site.concat(made[::-1] if site.attribute("reverse", 0) else made, axis)


@rewrite("Hardmax")
def rewrite_hardmax(site: Site) -> Value:
    """Constant almost everywhere."""
    return site.op("Hardmax", site.input().detach(), axis=site.attribute("axis", -1))
