"""Graph surgery: from a trained model with zero groups to the compact one."""

from onnx_asgnas.surgery.construct import construct, cut, remove, zero_structures

__all__ = ["construct", "cut", "remove", "zero_structures"]
