"""All rewrites, one module for each family of operators; importing this registers them."""

from onnx_asgnas.training.lowering import (
    contraction,
    control,
    layout,
    norm,
    pointwise,
    recurrent,
    reduce,
    resampling,
    sampling,
    spatial,
)

__all__ = [
    "contraction",
    "control",
    "layout",
    "norm",
    "pointwise",
    "recurrent",
    "reduce",
    "resampling",
    "sampling",
    "spatial",
]
