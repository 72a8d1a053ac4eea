"""From a source in any framework to an ONNX model: `torch:pkg.mod:factory`, `models:name`, or an .onnx file."""

from __future__ import annotations

from onnx_asgnas.converters.inputs import InputSpec, parse_input
from onnx_asgnas.converters.registry import Conversion, convert, convert_with_report, schemes

__all__ = ["Conversion", "InputSpec", "convert", "convert_with_report", "parse_input", "schemes"]
