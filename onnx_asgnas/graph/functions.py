"""Local functions, inlined where they are called, so that what comes behind sees operators only."""

from __future__ import annotations

import onnx
from onnx import inliner

from onnx_asgnas.graph.checks import frame_of, is_large_constant, without_weights


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network without calls of local functions; one in an opset that cannot be converted stays.

    The result has no initializers: they are those of the argument.
    """
    inlined = inliner.inline_local_functions(without_weights(model), convert_version=True)
    result = frame_of(inlined)
    result.functions.extend(inlined.functions)
    del result.graph.input[:]
    result.graph.input.extend(model.graph.input)
    result.graph.node.extend(node for node in model.graph.node if is_large_constant(node))
    result.graph.node.extend(inlined.graph.node)
    return result
