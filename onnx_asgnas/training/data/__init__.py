"""Data sources: `fashion-mnist-mini`, `fashion-mnist[:DIR]`, `npz:FILE`, `python:package.module:callable`."""

from __future__ import annotations

from onnx_asgnas.training.data import fashion_mnist, npz, stream  # noqa: F401  (importing them registers their sources)
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
