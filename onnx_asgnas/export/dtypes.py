"""Element types of ONNX and PyTorch."""

from __future__ import annotations

from onnx import TensorProto

from onnx_asgnas.errors import ModelError

_TORCH: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
    TensorProto.COMPLEX64: "complex64",
}


def torch_dtype(kind: int) -> str:
    """The name of the torch.dtype; raises ModelError for a type that PyTorch does not compute with."""
    found = _TORCH.get(kind)
    if found is None:
        name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else str(kind)
        raise ModelError(f"PyTorch has no element type {name}", fix="Export a model of floats instead.")
    return found
