"""The rewrites by operator: how each one is written in others that an engine differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from onnx_asgnas.training.lowering.site import Site, Value

Rewrite: TypeAlias = "Callable[[Site], Value | Sequence[Value | None]]"

REWRITES: dict[tuple[str, str], Rewrite] = {}
"""The rewrites by domain ("" for the standard) and operator."""

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""

PRIVATE = "onnx_asgnas"
"""The domain of `Detach`, which gives its input on and no gradient back; no file ever holds it."""


def rewrite(*op_types: str, domain: str = "") -> Callable[[Rewrite], Rewrite]:
    """Register a rewrite for these operators.

    It is called for a node on the gradient path that the engine does not differentiate as it stands, and gives the
    values that take the place of its outputs (None for an output that it does not make).
    """

    def register(function: Rewrite) -> Rewrite:
        REWRITES.update(dict.fromkeys(((domain, op_type) for op_type in op_types), function))
        return function

    return register
