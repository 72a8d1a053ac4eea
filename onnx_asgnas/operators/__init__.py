"""The operator registry: all that the system knows about an operator, one file per family."""

from onnx_asgnas.operators import (
    attention,
    control,
    dense,
    fused,
    layout,
    norm,
    opaque,
    pointwise,
    qlinear,
    quantised,
    recurrent,
    reduce,
    signal,
    spatial,
)
from onnx_asgnas.operators.parameters import counted_parameters, parameters_of, trainable_parameters
from onnx_asgnas.operators.quantisation import dequantised, zero_of
from onnx_asgnas.operators.registry import Entry, Joint, Op, Rule, entries, register, rule_of, rules_of

FAMILIES = (
    attention,
    control,
    dense,
    fused,
    layout,
    norm,
    opaque,
    pointwise,
    qlinear,
    quantised,
    recurrent,
    reduce,
    signal,
    spatial,
)
"""The modules that declare operators."""

__all__ = [
    "FAMILIES",
    "Entry",
    "Joint",
    "Op",
    "Rule",
    "counted_parameters",
    "dequantised",
    "entries",
    "parameters_of",
    "register",
    "rule_of",
    "rules_of",
    "trainable_parameters",
    "zero_of",
]
