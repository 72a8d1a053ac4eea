"""How each operator is written in PyTorch; importing the package fills the registry."""

from onnx_asgnas.export.torch_ops import (
    dense,
    indexing,
    layout,
    lengths,
    norm,
    pointwise,
    reduce,
    spatial,
)

__all__ = ["dense", "indexing", "layout", "lengths", "norm", "pointwise", "reduce", "spatial"]
