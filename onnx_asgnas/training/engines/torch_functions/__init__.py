"""Torch functions for the operators of a training graph, one module for each family; importing this registers them."""

from onnx_asgnas.training.engines.torch_functions import (
    activations,
    dense,
    indexing,
    layout,
    norm,
    pointwise,
    pooling,
    recurrent,
    reduce,
    resampling,
    shape,
)
from onnx_asgnas.training.engines.torch_functions.registry import TABLE, Compute, Function, Operator, function_of

__all__ = [
    "TABLE",
    "Compute",
    "Function",
    "Operator",
    "activations",
    "dense",
    "function_of",
    "indexing",
    "layout",
    "norm",
    "pointwise",
    "pooling",
    "recurrent",
    "reduce",
    "resampling",
    "shape",
]
