"""Losses by name, on outputs by name, with weights; as sums that parts of a batch add up to."""

from onnx_asgnas.training.losses.distillation import distilled, lesson
from onnx_asgnas.training.losses.kinds import KINDS, Kind, Outputs
from onnx_asgnas.training.losses.naming import objective, parse_list
from onnx_asgnas.training.losses.objective import Objective, Teacher, Term

__all__ = [
    "KINDS",
    "Kind",
    "Objective",
    "Outputs",
    "Teacher",
    "Term",
    "distilled",
    "lesson",
    "objective",
    "parse_list",
]
