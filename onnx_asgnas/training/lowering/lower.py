"""From the network as it stands to a graph that an engine can differentiate.

The training graph is made for gradients only and thrown away: the network itself is never changed, and both share
their parameters by name. So lowering needs no way back. Weights become graph inputs, and nodes are gone through once:
each is brought to an operator set between 18 and 21, and where a gradient flows through it that the engine has not, it
is rewritten, or replaced by the definition that the ONNX standard gives of it. What is then left is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import onnx
from onnx import inliner, numpy_helper

from onnx_asgnas.graph.nodes import is_standard
from onnx_asgnas.graph.shapes import ShapeInference, shapes_of
from onnx_asgnas.training.lowering import families as _registered  # noqa: F401 (rewrites register themselves)
from onnx_asgnas.training.lowering.dialect import ORT, Dialect
from onnx_asgnas.training.lowering.lifting import NEWEST_OPSET, OLDEST_OPSET
from onnx_asgnas.training.lowering.norm import batch_normalization
from onnx_asgnas.training.lowering.opset import NEWEST_IR, opset_of
from onnx_asgnas.training.lowering.path import GradientPath
from onnx_asgnas.training.lowering.precision import in_float32
from onnx_asgnas.training.lowering.refusing import helped_by_freezing, no_gradient
from onnx_asgnas.training.lowering.rewriting import Rewriting


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingGraph:
    """A differentiable graph; everything that changes between two runs is a graph input.

    `model.graph.input` holds the network's own `inputs`, then `parameters`, then `statistics` (the running mean and
    variance of every batch normalisation, which a run updates). `wrt` are the parameters and inputs that an output
    depends on differentiably, of those that were asked for; `differentiable` says for each output whether it depends on
    one of them. Half-precision tensors are float32 throughout.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    statistics: tuple[str, ...]
    wrt: tuple[str, ...]
    outputs: tuple[str, ...]
    differentiable: tuple[bool, ...]


def lower(
    model: onnx.ModelProto,
    parameters: Sequence[str],
    *,
    wrt: Collection[str] | None = None,
    freeze_bn: bool = False,
    dialect: Dialect = ORT,
) -> TrainingGraph:
    """The training graph of a model in normal form, which is not changed.

    `parameters` are the float initializers that will be fed from outside, `wrt` those of them, and those graph inputs,
    whose gradient will be asked for (all parameters where it is None). Batch normalisation goes into its training form,
    or with `freeze_bn` keeps using the running statistics; Dropout is off, as it is in normal form. The graph stays
    open in whatever dimensions the model is.

    Raises UnsupportedOperatorError for an operator that has no gradient and no lowering, with what would help if it is
    frozen as `freeze`, and ModelError where the model cannot be brought to an opset that the training runtime loads.
    """
    wrt = tuple(parameters if wrt is None else wrt)
    statistics = batch_norm_statistics(model)
    fed = in_float32(feed_from_outside(model, (*parameters, *statistics)), parameters)
    inputs = tuple(value.name for value in fed.graph.input)[: -len(parameters) - len(statistics) or None]
    on_path = {node.name for node in GradientPath(fed, wrt).nodes}
    normalise_batches = batch_normalization(statistics, freeze_bn)

    def add(node: onnx.NodeProto, graph: Rewriting, version: int) -> None:
        if node.op_type == "BatchNormalization" and is_standard(node):
            graph.add_as(node, version, normalise_batches)
        else:
            graph.add(node, version, differentiated=node.name in on_path)

    with helped_by_freezing(fed, parameters, wrt):
        rewriting = _rewritten(fed, dialect, wrt, add)
        lowered = rewriting.finish()
        path = GradientPath(lowered, wrt)
        for node in path.nodes:
            if node.name in rewriting.stuck:
                raise no_gradient(rewriting.stuck[node.name], node)
    outputs = tuple(value.name for value in lowered.graph.output)
    return TrainingGraph(
        model=lowered,
        inputs=inputs,
        parameters=tuple(parameters),
        statistics=statistics,
        wrt=tuple(name for name in wrt if name in path.tensors),
        outputs=outputs,
        differentiable=tuple(name in path.tensors and rewriting.is_float(name) for name in outputs),
    )


def loadable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in an opset and an IR version that the training runtime loads, for inference."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    if opset_of(model) > NEWEST_OPSET:
        model = _rewritten(
            model, ORT, (), lambda node, graph, version: graph.add(node, version, differentiated=False)
        ).finish()
    if model.ir_version > NEWEST_IR:
        older = onnx.ModelProto()
        older.CopyFrom(model)
        older.ir_version = NEWEST_IR
        model = older
    return model


def batch_norm_statistics(model: onnx.ModelProto) -> tuple[str, ...]:
    """The initializers that hold the running means and variances of batch normalisations, in order of use."""
    weights = {t.name for t in model.graph.initializer}
    read = [n.input[3:5] for n in model.graph.node if n.op_type == "BatchNormalization" and is_standard(n)]
    return tuple(dict.fromkeys(name for names in read for name in names if name in weights))


def feed_from_outside(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same network without the values of these initializers: they become graph inputs, after the others."""
    chosen = set(names)
    weights = {t.name: t for t in model.graph.initializer}
    result = _copy_without_weights(model, chosen)
    result.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, weights[name].data_type, list(weights[name].dims)) for name in names
    )
    return result


def _rewritten(
    model: onnx.ModelProto,
    dialect: Dialect,
    wrt: Collection[str],
    add: Callable[[onnx.NodeProto, Rewriting, int], None],
) -> Rewriting:
    """All nodes gone through, at open lengths that leave no tensor empty."""
    version = opset_of(model)
    target = min(max(version, OLDEST_OPSET), NEWEST_OPSET)
    frame = onnx.ModelProto(ir_version=min(model.ir_version, NEWEST_IR), opset_import=model.opset_import)
    for entry in frame.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = target
    _assign_graph(frame.graph, model.graph)

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in frame.graph.initializer}
    shapes = ShapeInference(frame, lengths=shapes_of(model, constants).lengths)
    for name, value in constants.items():
        shapes.add_constant(name, value)
    rewriting = Rewriting(frame, shapes, dialect, wrt)
    for node in model.graph.node:
        add(node, rewriting, version)
    return rewriting


def _assign_graph(target: onnx.GraphProto, source: onnx.GraphProto) -> None:
    for field, value in source.ListFields():
        if field.name != "node":
            _assign(target, field.name, value)


def _copy_without_weights(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy that never touches the values of these initializers: they can be gigabytes."""
    result = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _assign(result, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _assign(result.graph, field.name, value)
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name not in names)
    return result


def _assign(message: onnx.ModelProto | onnx.GraphProto, field: str, value: object) -> None:
    if isinstance(value, str | int):
        setattr(message, field, value)
    else:
        getattr(message, field).MergeFrom(value)
