"""Products of matrices, and sums over products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Site, Value

_LARGEST_DETERMINANT = 5
"""Rows up to which a determinant is written out."""


@rewrite("MatMul")
def rewrite_matmul(site: Site) -> Value:
    """MatMul of matrices: the gradient refuses vectors."""
    one, other = site.input(0), site.input(1)
    if not (one.has_rank and other.has_rank) or min(one.rank, other.rank) > 1:
        return site.kept("MatMul", one, other)
    left = one.unsqueeze(0) if one.rank == 1 else one
    right = other.unsqueeze(1) if other.rank == 1 else other
    product = left @ right
    axes = [product.rank - 2] * (one.rank == 1) + [product.rank - 1] * (other.rank == 1)
    return product.squeeze(*axes)


@rewrite("Einsum")
def rewrite_einsum(site: Site) -> Value:
    """Einsum operand by operand: diagonals taken, what nobody else has summed, and then one MatMul for each pair."""
    operands = site.inputs()
    terms, wanted = _labels(site, [x.rank for x in operands])
    parts = [_without_repeats(x, term) for x, term in zip(operands, terms, strict=True)]
    left, have = parts[0]
    for at, (right, labels) in enumerate(parts[1:], 1):
        later = set(wanted).union(*(term for _, term in parts[at + 1 :]))
        pair = _summed(left, have, later | set(labels)), _summed(right, labels, later | set(have))
        left, have = _contracted(*pair, later)
    left, have = _summed(left, have, set(wanted))
    return left.transpose(*(have.index(label) for label in wanted))


Labelled = tuple[Value, list[str]]


def _labels(site: Site, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The label of every axis of every operand, and of the result; "..." stands for axes named 0, 1, … from the end."""
    equation = site.attribute("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    letters = [len(term.replace("...", "")) for term in terms]
    extra = [r - n if "..." in term else 0 for term, n, r in zip(terms, letters, ranks, strict=True)]

    def spelled(term: str, count: int) -> list[str]:
        before, dots, after = term.partition("...")
        return [*before, *(str(count - 1 - at) for at in range(count if dots else 0)), *after]

    spelt = [spelled(term, count) for term, count in zip(terms, extra, strict=True)]
    if arrow:
        return spelt, spelled(right, max(extra))
    counts = Counter(label for term in spelt for label in term)
    once = sorted(label for label, count in counts.items() if count == 1 and not label.isdigit())
    return spelt, [*(str(at) for at in reversed(range(max(extra)))), *once]


def _without_repeats(x: Value, labels: list[str]) -> Labelled:
    """Diagonals: two axes of one label become one."""
    while len(set(labels)) < len(labels):
        label = next(name for name, count in Counter(labels).items() if count > 1)
        first, second = [at for at, name in enumerate(labels) if name == label][:2]
        size = x.fixed_size(first, "diagonal")
        rest = [at for at in range(x.rank) if at not in (first, second)]
        pairs = x.transpose(*rest, first, second)
        flat = pairs.reshape(*pairs.dims(0, len(rest)), size * size)
        x = flat.gather(np.arange(size) * (size + 1), len(rest))
        labels = [*(labels[at] for at in rest), label]
    return x, list(labels)


def _summed(x: Value, labels: list[str], needed: set[str]) -> Labelled:
    """Summed over what nobody else reads."""
    axes = [at for at, label in enumerate(labels) if label not in needed]
    return x.sum(axes), [label for label in labels if label in needed]


def _contracted(one: Labelled, other: Labelled, needed: set[str]) -> Labelled:
    """The product of two operands: batch labels in both, sums over those that nobody needs further."""
    (x, left), (y, right) = one, other
    both = [label for label in left if label in right]
    batch, summed = [label for label in both if label in needed], [label for label in both if label not in needed]
    rows, columns = [n for n in left if n not in right], [n for n in right if n not in left]
    matrices = _as_matrix(x, left, batch, rows, summed), _as_matrix(y, right, batch, summed, columns)
    product = matrices[0] @ matrices[1]
    dims = [x.dim(left.index(n)) for n in rows], [y.dim(right.index(n)) for n in columns]
    labels = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        product = product.reshape(*product.dims(0, len(batch)), *dims[0], *dims[1])
    return product, labels


def _as_matrix(x: Value, labels: list[str], batch: list[str], rows: list[str], columns: list[str]) -> Value:
    """[batch…, rows, columns], each of the two as one axis."""
    x = x.transpose(*(labels.index(label) for label in (*batch, *rows, *columns)))
    if len(rows) == 1 and len(columns) == 1:
        return x
    count = len(batch)
    sizes = [x.shape[count : count + len(rows)], x.shape[count + len(rows) :]]
    known = [int(np.prod([n for n in part if n is not None])) if None not in part else -1 for part in sizes]
    if known == [-1, -1]:
        raise x.site.refusal("the sizes of two groups of its axes are open")
    return x.reshape(*x.dims(0, count), *known)


@rewrite("Det")
def rewrite_determinant(site: Site) -> Value:
    """Expanded along the first row, over and over; only small matrices are."""
    x = site.input()
    size = x.fixed_size(-1, "expansion")
    if size > _LARGEST_DETERMINANT:
        raise site.refusal(f"a determinant of {size} rows is not written out, only one of {_LARGEST_DETERMINANT}")
    rows = [row.squeeze(x.rank - 2) for row in x.split(x.rank - 2, [1] * size)]
    entries = [[entry.squeeze(x.rank - 2) for entry in row.split(x.rank - 2, [1] * size)] for row in rows]
    return _determinant(entries)


def _determinant(entries: list[list[Value]]) -> Value:
    if len(entries) == 1:
        return entries[0][0]
    total = None
    for column, entry in enumerate(entries[0]):
        minor = _determinant([[*row[:column], *row[column + 1 :]] for row in entries[1:]])
        term = entry * minor
        total = term if total is None else total - term if column % 2 else total + term
    assert total is not None
    return total
