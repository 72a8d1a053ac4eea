"""Fake quantisation: rounded going forward, and straight through going back."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.graph.nodes import is_standard
from onnx_asgnas.training.lowering.registry import MICROSOFT, rewrite
from onnx_asgnas.training.lowering.site import Site, Value

_RANGES = {np.dtype(np.int8): (-128, 127), np.dtype(np.uint8): (0, 255), np.dtype(np.int16): (-32768, 32767)}


@rewrite("QuantizeLinear")
@rewrite("QuantizeLinear", domain=MICROSOFT)
def rewrite_quantize(site: Site) -> Value:
    """Kept: what reads it decides what becomes of the gradient."""
    given = {name: site.attribute(name) for name in ("axis", "saturate", "block_size", "output_dtype")}
    return site.kept("QuantizeLinear", *site.inputs(), **given)


@rewrite("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")
def rewrite_whole_numbers(site: Site) -> Value:
    """Refused: no gradient flows through whole numbers, and leaving it out would be silent."""
    raise site.refusal("it computes in whole numbers")


@rewrite("DequantizeLinear")
@rewrite("DequantizeLinear", domain=MICROSOFT)
def rewrite_dequantize(site: Site) -> Value:
    """With the QuantizeLinear that it reads: rounded to whole steps, and the gradient of a clip to their range.

    Written in floats: the runtime moves such pairs about, and then finds their zero points no more.
    """
    made_by = site.graph.producer(site.node.input[0])
    if made_by is None or made_by.op_type != "QuantizeLinear" or not is_standard(made_by):
        raise site.refusal("its whole numbers are not made by a QuantizeLinear right before it")
    bounds = _RANGES.get(np.dtype(site.input(0).dtype))
    if bounds is None:
        raise site.refusal("it is quantised to other than 8 or 16 bits")
    if site.attribute("block_size", 0):
        raise site.refusal("it is quantised in blocks")
    x, scale = Value(site, made_by.input[0]), site.input(1).detach()
    zero = site.input(2).cast(np.float32) if site.has(2) else site.number(0.0, scale)
    if scale.rank == 1 and scale.shape != [1]:
        behind = x.rank - 1 - site.axis(1, x.rank)
        scale, zero = (part.reshape(-1, *[1] * behind) if part.rank else part for part in (scale, zero))
    low, high = ((site.number(bound, scale) - zero) * scale for bound in bounds)
    clipped = site.op("Min", site.op("Max", x, low), high)
    steps = site.op("Round", clipped.detach() / scale)
    return clipped + (steps * scale - clipped.detach()).detach()
