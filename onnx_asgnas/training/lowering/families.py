"""All rewrites, one module for each family of operators; importing this registers them."""

from onnx_asgnas.training.lowering import (
    attention,
    contraction,
    control,
    fused,
    layout,
    norm,
    pointwise,
    quantisation,
    recurrent,
    reduce,
    resampling,
    sampling,
    signal,
    spatial,
)

__all__ = [
    "attention",
    "contraction",
    "control",
    "fused",
    "layout",
    "norm",
    "pointwise",
    "quantisation",
    "recurrent",
    "reduce",
    "resampling",
    "sampling",
    "signal",
    "spatial",
]
