"""Networks built in code: `models:stackedunets?width=16`."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.converters.registry import Conversion
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models import parse


def convert(body: str, inputs: Sequence[InputSpec]) -> Conversion:
    """The network that `body` names; raises ConversionError for unknown networks and arguments."""
    if inputs:
        raise ConversionError(
            "networks of models: know what they read",
            fix=f"Leave --input out; models:{body.partition('?')[0]}?in_channels=3&size=32 changes it.",
        )
    return Conversion(model=parse(body))
