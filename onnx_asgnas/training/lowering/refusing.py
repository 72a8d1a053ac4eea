"""Saying which operator does not train, and whether freezing what lies before it would help."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import onnx

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph.nodes import is_standard, read_by
from onnx_asgnas.training.lowering.path import GradientPath

_MOST_PATTERNS = 8
"""More patterns than this are not worth naming."""


def no_gradient(origin: onnx.NodeProto, node: onnx.NodeProto) -> UnsupportedOperatorError:
    """The error for an operator of the source of which `node`, in the training graph, is what has no gradient."""
    domain = "" if is_standard(origin) else f"{origin.domain}."
    part = "" if node.op_type == origin.op_type else f": it is made of {node.op_type}"
    return UnsupportedOperatorError(
        f"{domain}{origin.op_type} {origin.name!r} has no gradient, and no lowering to operators that have one{part}",
        op_type=origin.op_type,
        node=origin.name,
    )


@contextmanager
def helped_by_freezing(model: onnx.ModelProto, parameters: Sequence[str], wrt: Sequence[str]) -> Iterator[None]:
    """Add to a refusal what to freeze so that no gradient has to pass the operator, and say so where nothing helps."""
    try:
        yield
    except UnsupportedOperatorError as error:
        before = _before(model, str(error.node), wrt)
        trained = [name for name in wrt if name in set(parameters)]
        patterns = freeze_patterns(before, parameters)
        error.fields["freeze"] = ()
        if any(name not in set(parameters) for name in before):
            error.fix = "A gradient of an input is asked for that has to pass it; do without, or export it otherwise."
        elif not GradientPath(model, [name for name in trained if name not in before]).nodes:
            error.fix = "Nothing that trains lies behind it, so freezing does not help: export the model without it."
        elif len(patterns) > _MOST_PATTERNS:
            error.fix = f"Freeze the {len(before)} parameters before it (freeze=[...], --freeze PATTERN)."
            error.fields["freeze"] = patterns
        else:
            options = " ".join(f"--freeze {pattern!r}" for pattern in patterns)
            error.fix = f"Freeze what lies before it ({options}), or export the model without it."
            error.fields["freeze"] = patterns
        raise


def _before(model: onnx.ModelProto, node: str, wrt: Sequence[str]) -> set[str]:
    """Those of `wrt` whose gradient has to pass a node."""
    path = GradientPath(model, wrt)
    found: set[str] = set()
    for other in reversed(path.nodes):
        if other.name == node or not found.isdisjoint(other.output):
            found.update(name for name in read_by(other) if name in path.tensors)
    return found.intersection(wrt)


def freeze_patterns(names: Collection[str], parameters: Sequence[str]) -> tuple[str, ...]:
    """Few name patterns that match these of the parameters, and no others."""
    left, patterns = [name for name in parameters if name in names], []
    others = [name for name in parameters if name not in names]
    while left:
        pattern, prefix = _literal(left[0]), None
        for end in [0, *(match.end() for match in re.finditer(r"[./_:]", left[0]))]:
            if not any(name.startswith(left[0][:end]) for name in others):
                prefix = left[0][:end]
                break
        if prefix is not None and sum(name.startswith(prefix) for name in left) > 1:
            patterns.append(f"{_literal(prefix)}*")
            left = [name for name in left if not name.startswith(prefix)]
        else:
            patterns.append(pattern)
            left = left[1:]
    return tuple(patterns)


def _literal(name: str) -> str:
    """A pattern that matches this text only."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
