"""All rewrites, one module for each family of operators; importing this registers them."""

from onnx_asgnas.training.lowering import (
    control,
    layout,
    norm,
    pointwise,
    reduce,
    resampling,
    spatial,
)

__all__ = ["control", "layout", "norm", "pointwise", "reduce", "resampling", "spatial"]
