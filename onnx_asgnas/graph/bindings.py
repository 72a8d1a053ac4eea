"""Numbers for the dimensions that a model leaves open, at three bindings.

A dimension with a name has the same number wherever the name stands, and a name may be an expression of others
("past + sequence"). At the first binding an open batch is 1, any other open length 64; at the second 2 and 96. The
third, odd sizes that no two names share, catches what is equal by chance (N // 4 is zero at one and at two, height % 32
at 64 and at 96).

Windows and strides may be larger than that (speech networks begin with strides of 320 samples), tables of positions
smaller: where a tensor comes out empty, LONGER ones are tried, and where operands do not fit together, SHORTER ones.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable
from itertools import count

import onnx

from onnx_asgnas.graph.facts import Dims

Sizes = tuple[int, int, int]

USUAL = (64, 96)
"""Of an open length other than the batch, at the first two bindings: multiples of the usual strides."""
LONGER = ((1024, 1536), (16384, 24576))
SHORTER = ((16, 24), (4, 6))

_BATCH = (1, 2)
_PRIMES = (67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179)
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


class OpenDimensions:
    """The numbers of the open dimensions of these inputs; `lengths` are those of any but the batch.

    Without any open dimension there is a single binding.
    """

    def __init__(self, inputs: Iterable[onnx.ValueInfoProto], lengths: tuple[int, int] = USUAL) -> None:
        self._lengths = lengths
        self._sizes: dict[str, Sizes] = {}
        self._primes = count()
        self._batch: Sizes | None = None
        self._places: dict[tuple[str, int], Sizes] = {}
        composite = []
        for value in inputs:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if not is_open(dim):
                    continue
                name = dim.dim_param
                if not name:
                    self._places[value.name, axis] = self._fresh(axis) if axis else self._unnamed_batch()
                elif name not in self._sizes:
                    if name.isidentifier() or _parse(name) is None:
                        self._sizes[name] = self._fresh(axis)
                    else:
                        composite.append((name, axis))
        self.bindings = 3 if self._sizes or self._places or composite else 1
        for name, axis in composite:
            found = self._computed(name)
            self._sizes[name] = self._fresh(axis) if found is None or min(found) < 1 else found

    def dims(self, value: onnx.ValueInfoProto, binding: int) -> Dims | None:
        """The lengths of an input at a binding; of another value, None where a dimension has no known name."""
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            return None
        result: list[int | None] = []
        for axis, dim in enumerate(kind.shape.dim):
            sizes = self._places.get((value.name, axis)) or self._sizes.get(dim.dim_param)
            result.append((sizes and sizes[binding]) if is_open(dim) else dim.dim_value)
        return tuple(result)

    def _fresh(self, axis: int) -> Sizes:
        place = next(self._primes)
        if not axis or self._lengths == USUAL:
            return *(self._lengths if axis else _BATCH), _PRIMES[place % len(_PRIMES)]
        return *self._lengths, self._lengths[0] + 1 + 2 * place

    def _unnamed_batch(self) -> Sizes:
        """Dimensions without a name that stand first are one and the same."""
        if self._batch is None:
            self._batch = self._fresh(0)
        return self._batch

    def _computed(self, name: str) -> Sizes | None:
        tree = _parse(name)
        numbers = [None if tree is None else self._value(tree, at) for at in range(3)]
        first, second, third = numbers
        return None if first is None or second is None or third is None else (first, second, third)

    def _value(self, tree: ast.expr, binding: int) -> int | None:
        """The number of an expression of names that are known, and of whole numbers."""
        if isinstance(tree, ast.Constant):
            return tree.value if isinstance(tree.value, int) else None
        if isinstance(tree, ast.Name):
            return self._sizes[tree.id][binding] if tree.id in self._sizes else None
        if not isinstance(tree, ast.BinOp) or type(tree.op) not in _OPERATORS:
            return None
        left, right = self._value(tree.left, binding), self._value(tree.right, binding)
        if left is None or right is None or (isinstance(tree.op, ast.FloorDiv) and not right):
            return None
        return _OPERATORS[type(tree.op)](left, right)


def is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Does the model leave this dimension open."""
    return not dim.HasField("dim_value") or dim.dim_value <= 0


def _parse(name: str) -> ast.expr | None:
    try:
        return ast.parse(name, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
