"""Cuts of small models, checked by running them: what leaves, what sizes are left, and that the output is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_asgnas import Target
from onnx_asgnas.evaluation.difference import relative_difference
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.inputs import made_up_inputs
from onnx_asgnas.graph.nodes import read_by
from onnx_asgnas.pruning import Pruned, cut
from onnx_asgnas.surgery import construct

Array = NDArray[Any]


def model_of(
    text: str, arrays: Mapping[str, Array], opset: int = 17, microsoft: int = 0, ir: int = 8
) -> onnx.ModelProto:
    """A model of ONNX text ("(float[N, 4] x) => (float[N, 3] y) { … }"), with the arrays that it reads as weights."""
    domains = f'"" : {opset}' + (f', "com.microsoft" : {microsoft}' if microsoft else "")
    model = onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{domains}]> agraph {text}")
    read = {name for node in model.graph.node for name in read_by(node)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items() if name in read
    )
    return model


def normal(*shape: int, seed: int = 0) -> Array:
    """Random float32 numbers."""
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def cut_half(model: onnx.ModelProto, *, seed: int = 0, by_reference: bool = False) -> Pruned:
    """Half of the channels of everything out at random; the result is the same network, and cannot be cut further."""
    before = model.SerializeToString(deterministic=True)
    result = cut(model, Target(uniform=0.5), criterion="random", seed=seed)
    assert model.SerializeToString(deterministic=True) == before
    if by_reference:
        check_by_reference(model, result)
    else:
        found = result.verify()
        assert found.passed, found.explanation
        assert found.moved is not None and found.moved > 1e-3
    again = construct(result.compact)
    assert sizes_of(again) == sizes_of(result.compact)
    return result


def check_by_reference(model: onnx.ModelProto, result: Pruned) -> None:
    """The same comparison by the standard's reference evaluator, for what onnxruntime has no kernel for."""
    feeds = made_up_inputs(TraceGraph.of(model), 2)
    with np.errstate(all="ignore"):  # it computes all branches of what it selects from
        given, full, compact = (ReferenceEvaluator(m).run(None, feeds) for m in (model, result.zeroed, result.compact))
    for expected, found in zip(full, compact, strict=True):
        assert relative_difference(expected, found) <= 1e-5
    assert max(relative_difference(a, b) for a, b in zip(given, full, strict=True)) > 1e-3


def sizes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of the initializers."""
    return {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def free_groups(result: Pruned) -> int:
    """How many channel groups may leave."""
    return result.space.channels.count


def reasons_of(result: Pruned) -> set[tuple[str, str]]:
    """Why channels stay: operator and reason."""
    return {(frozen.op_type, frozen.reason) for frozen in result.space.frozen}


def attributes_of(model: onnx.ModelProto, op_type: str) -> list[dict[str, Any]]:
    """The attributes of every node of this type."""
    return [
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in model.graph.node
        if node.op_type == op_type
    ]
