"""Data sources: image sets as their publishers ship them, folders of images, arrays, and the user's own batches."""

from __future__ import annotations

from onnx_asgnas.training.data import (  # noqa: F401  (importing them registers their sources)
    cifar,
    fashion_mnist,
    folder,
    imagenet,
    npz,
    stl10,
    stream,
    svhn,
)
from onnx_asgnas.training.data.dataset import (
    ArraySplit,
    Batch,
    Dataset,
    ModelInput,
    Split,
    Targets,
    model_inputs,
    samples_in,
)
from onnx_asgnas.training.data.registry import DataRequest, DataSource, open_data, register, sources

__all__ = [
    "ArraySplit",
    "Batch",
    "DataRequest",
    "DataSource",
    "Dataset",
    "ModelInput",
    "Split",
    "Targets",
    "model_inputs",
    "open_data",
    "register",
    "samples_in",
    "sources",
]
