"""A converter as another package brings it: a scheme `toy:N` for a Relu over N features."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_asgnas.converters import Export, InputSpec, Source, record


def convert(source: Source) -> Export:
    model = onnx.ModelProto()
    kind = f"float[N,{source.body}]"
    text = f'<ir_version: 10, opset_import: ["" : 20]> toy ({kind} x) => ({kind} y) {{ y = Relu(x) }}'
    model.CopyFrom(onnx.parser.parse_model(text))
    inputs = (InputSpec(name="x", dtype="float32", shape=("N", int(source.body))),)
    return Export(model=model, exporter="toy", samples=record(lambda a: [np.maximum(a[0], 0)], inputs, ["x"]))
