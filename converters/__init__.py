"""From a source in any framework to an ONNX model: `torch:package.module:factory`, `keras:net.keras`, a .onnx file."""

from __future__ import annotations

from onnx_asgnas.converters.conversion import Conversion, convert, convert_with_report
from onnx_asgnas.converters.export import Export, Sample, Source, record
from onnx_asgnas.converters.inputs import InputSpec, parse_input
from onnx_asgnas.converters.registry import Converter, schemes

__all__ = [
    "Conversion",
    "Converter",
    "Export",
    "InputSpec",
    "Sample",
    "Source",
    "convert",
    "convert_with_report",
    "parse_input",
    "record",
    "schemes",
]
