"""Which operator set a model uses."""

from __future__ import annotations

import onnx

NEWEST_IR = 10
"""The newest IR version that the training runtime loads."""


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the ONNX standard that the model follows."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=21)
