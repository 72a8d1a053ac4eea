"""From the network as it stands to a graph that an engine can differentiate.

The training graph is made for gradients only and thrown away: the network itself is never changed, and both share
their parameters by name. So lowering needs no way back. It goes in five steps: weights become graph inputs, the opset
becomes one that the training runtime loads, operators without a gradient are replaced by the body that the ONNX
standard defines for them, what is left is rewritten by `rewrites`, and what still has no gradient is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.training.lowering import resampling as _registered  # noqa: F401 (its rewrites register themselves)
from onnx_asgnas.training.lowering.dialect import DIFFERENTIABLE, ORT, Dialect
from onnx_asgnas.training.lowering.opset import (
    BODIES_OPSET,
    has_body,
    inline_bodies,
    is_standard,
    loadable,
    opset_of,
    raise_opset,
    trace_constants,
    without_cast_like,
)
from onnx_asgnas.training.lowering.path import GradientPath
from onnx_asgnas.training.lowering.rewrites import freeze_batch_normalization, train_batch_normalization
from onnx_asgnas.training.lowering.rewriting import REWRITES, Rewriting, attribute


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingGraph:
    """A differentiable graph; everything that changes between two runs is a graph input.

    `model.graph.input` holds the network's own `inputs`, then `parameters`, then `statistics` (the running mean and
    variance of every batch normalisation, which a run updates). `wrt` are the parameters and inputs that an output
    depends on differentiably, of those that were asked for; `differentiable` says for each output whether it depends on
    one of them.
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

    Raises UnsupportedOperatorError for an operator that has no gradient and no lowering, and ModelError where the model
    cannot be brought to an opset that the training runtime loads.
    """
    wrt = parameters if wrt is None else wrt
    statistics = batch_norm_statistics(model)
    fed = feed_from_outside(model, (*parameters, *statistics))
    inputs = tuple(value.name for value in fed.graph.input)[: -len(parameters) - len(statistics) or None]
    fed = _inline_bodies(without_cast_like(loadable(fed)), wrt, dialect)
    fed = _rewrite(fed, wrt, freeze_bn, dialect)
    path = GradientPath(fed, wrt)
    _refuse_the_rest(path, dialect)
    outputs = tuple(value.name for value in fed.graph.output)
    return TrainingGraph(
        model=fed,
        inputs=inputs,
        parameters=tuple(parameters),
        statistics=statistics,
        wrt=tuple(name for name in wrt if name in path.tensors),
        outputs=outputs,
        differentiable=tuple(name in path.tensors for name in outputs),
    )


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


def _inline_bodies(model: onnx.ModelProto, wrt: Collection[str], dialect: Dialect) -> onnx.ModelProto:
    """Replace operators on the gradient path by the standard's own definition, until those left need none."""
    done: set[str] = set()
    while True:
        opset = max(opset_of(model), BODIES_OPSET)
        on_path = [
            node for node in GradientPath(model, wrt).nodes if is_standard(node) and not _is_handled(node, dialect)
        ]
        wanted = {node.op_type for node in on_path if has_body(node.op_type, opset)} - done
        if not wanted:
            return model
        model = inline_bodies(raise_opset(model, BODIES_OPSET), wanted)
        done |= wanted


def _is_handled(node: onnx.NodeProto, dialect: Dialect) -> bool:
    if not dialect.native(node) and node.op_type == "Gelu" and attribute(node, "approximate", b"none") == b"tanh":
        return False  # the runtime's own gradient of it is wrong
    return dialect.native(node) or node.op_type in REWRITES or node.op_type in DIFFERENTIABLE


def _rewrite(model: onnx.ModelProto, wrt: Collection[str], freeze_bn: bool, dialect: Dialect) -> onnx.ModelProto:
    """Apply the rewrites: on the gradient path, and to every batch normalisation that is to keep statistics."""
    trace = trace_constants(model)
    on_path = {node.name for node in GradientPath(model, wrt).nodes}
    rewriting = Rewriting(trace)
    for node in trace.nodes:
        if node.op_type == "BatchNormalization" and is_standard(node):
            (freeze_batch_normalization if freeze_bn else train_batch_normalization)(node, rewriting)
        elif node.name in on_path and is_standard(node) and node.op_type in REWRITES and not dialect.native(node):
            REWRITES[node.op_type](node, rewriting)
        else:
            rewriting.keep(node)
    return rewriting.finish()


def _refuse_the_rest(path: GradientPath, dialect: Dialect) -> None:
    for node in path.nodes:
        if not dialect.native(node) and not (is_standard(node) and node.op_type in DIFFERENTIABLE):
            domain = "" if is_standard(node) else f"{node.domain}."
            raise UnsupportedOperatorError(
                f"{domain}{node.op_type} {node.name!r} has no gradient, and no lowering to operators that have one",
                fix="Freeze the parameters before it (freeze=[...], --freeze PATTERN), or export the model without it.",
                op_type=node.op_type,
                node=node.name,
            )


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
