"""Experiments: runs that belong together, told by a TOML file each, done one after another, kept as JSON lines."""

from onnx_asgnas.experiments.recipe import Experiment, Sweep, names, queue, read
from onnx_asgnas.experiments.runner import Run, Runner

__all__ = ["Experiment", "Run", "Runner", "Sweep", "names", "queue", "read"]
