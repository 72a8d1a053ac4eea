"""Networks built in code: a registry of functions that give an ONNX model with seeded random weights."""

from __future__ import annotations

from onnx_asgnas.models import (  # noqa: F401  (importing them registers their networks)
    darts,
    demosupnet,
    regnet,
    stackedunets,
    superresnet,
)
from onnx_asgnas.models.registry import build, names, parse

__all__ = ["build", "names", "parse"]
