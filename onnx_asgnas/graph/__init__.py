"""ONNX models: load and save, the normal form, shapes, and the trace graph."""

from onnx_asgnas.graph.model_io import ModelSource, load_model, save_model, write_atomically
from onnx_asgnas.graph.nodes import remove_dead
from onnx_asgnas.graph.normalise import normalise
from onnx_asgnas.graph.trace import TraceGraph

__all__ = ["ModelSource", "TraceGraph", "load_model", "normalise", "remove_dead", "save_model", "write_atomically"]
