"""A model in float64, run by the standard's own reference: what a network gives without the rounding of float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_pool_common import CommonPool

from onnx_asgnas.evaluation.half_precision import retyped
from onnx_asgnas.graph.runtime import Arrays


def outputs_in_double(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    """What the model gives when all that is float32 in it is float64, its inputs included.

    Raises NotImplementedError for an operator that the reference has not.
    """
    feed = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feed.items()}
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        wide = ReferenceEvaluator(retyped(model, {TensorProto.FLOAT}, TensorProto.DOUBLE), new_ops=[AveragePool])
        found = wide.run(names, feed)
    return dict(zip(names, found, strict=True))


class AveragePool(CommonPool):
    """The reference's own, with windows no larger than the image: it would pad to the kernel, whatever that is.

    EfficientNet's last pooling has one as large as its number of channels.
    """

    def _run(self, x: Any, **attributes: Any) -> tuple[Any]:  # type: ignore[override]
        known = {"auto_pad": None, "ceil_mode": None, "dilations": None, "pads": None, "strides": None} | attributes
        padded = known.pop("count_include_pad", None)
        if not any(known["pads"] or ()):
            known["kernel_shape"] = [min(pair) for pair in zip(known["kernel_shape"], x.shape[2:], strict=True)]
        result: tuple[Any] = super()._run("AVG", padded, x, **known)  # type: ignore[no-untyped-call]
        return result
