"""From the network as it stands to a graph that an engine can differentiate."""

from onnx_asgnas.training.lowering.dialect import ORT, Dialect
from onnx_asgnas.training.lowering.lower import (
    TrainingGraph,
    batch_norm_statistics,
    feed_from_outside,
    loadable,
    lower,
)
from onnx_asgnas.training.lowering.path import GradientPath
from onnx_asgnas.training.lowering.precision import in_float32

__all__ = [
    "ORT",
    "Dialect",
    "GradientPath",
    "TrainingGraph",
    "batch_norm_statistics",
    "feed_from_outside",
    "in_float32",
    "loadable",
    "lower",
]
