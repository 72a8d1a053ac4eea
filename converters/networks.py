"""Networks built in code: `models:stackedunets?width=16`."""

from __future__ import annotations

from onnx_asgnas.converters.export import Export, Source
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models import parse


def convert(source: Source) -> Export:
    """The network that the source names; raises ConversionError for unknown networks and arguments."""
    if source.inputs:
        raise ConversionError(
            "networks of models: know what they read",
            fix=f"Leave --input out; models:{source.body.partition('?')[0]}?in_channels=3&size=32 changes it.",
        )
    return Export(model=parse(source.body), exporter="onnx_asgnas.models", finished=True)
