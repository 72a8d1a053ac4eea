"""The way back to PyTorch: a model as readable code, with its weights beside it."""

from onnx_asgnas.export.write import Export, export_torch

__all__ = ["Export", "export_torch"]
