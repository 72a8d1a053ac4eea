"""The normal form that every later stage works on.

In it, every node has a name of its own, constants are initializers, batch normalisation and dropout are in inference
form, local functions are inlined, shared weights that an exporter only merged are apart again, shape arithmetic that
does not depend on an open dimension is a number, and nothing is dead. Names of tensors, inputs and outputs, opset and
metadata are the source's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.graph.checks import frame_of, is_large, value_info
from onnx_asgnas.graph.folding import fold
from onnx_asgnas.graph.functions import inline_functions
from onnx_asgnas.graph.nodes import has_subgraph, is_standard, live, read_by, remove_dead, replace, subgraphs
from onnx_asgnas.graph.shapes import ShapeInference, at_lengths_that_fit
from onnx_asgnas.graph.weights import Weights

__all__ = ["NormalForm", "normal_form", "normalise", "read_by", "remove_dead"]

_LARGEST_DENSE = 2**24
"""Elements up to which a sparse initializer is written out."""


@dataclass(slots=True)
class NormalForm:
    """The normal form in parts: initializers are those of the source, by reference, until a whole model is asked for.

    `frame` is a model without nodes and initializers, `reads` what each node reads. The protos of initializers must
    not be changed, and may have another name of their own than the one that they stand under.
    """

    frame: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    reads: list[list[str]]
    initializers: dict[str, onnx.TensorProto]
    weights: Weights
    shapes: ShapeInference

    def model(self) -> onnx.ModelProto:
        """A model of its own, with all weights in memory."""
        result = onnx.ModelProto()
        result.CopyFrom(self.frame)
        result.graph.node.extend(self.nodes)
        for name, tensor in self.initializers.items():
            self.weights.into(result.graph.initializer.add(), tensor, name)
        return result

    def outline(self) -> onnx.ModelProto:
        """A model of its own in which large initializers are graph inputs of their type and shape."""
        result = onnx.ModelProto()
        result.CopyFrom(self.frame)
        result.graph.node.extend(self.nodes)
        for name, tensor in self.initializers.items():
            if is_large(tensor):
                result.graph.input.append(value_info(name, tensor))
            else:
                self.weights.into(result.graph.initializer.add(), tensor, name)
        return result


def normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The normal form as a new model; the argument is not changed. It needs a model that onnx.checker accepts."""
    return normal_form(model).model()


def normal_form(model: onnx.ModelProto, weights: Weights | None = None) -> NormalForm:
    """The normal form in parts, with what shape inference found on the way; the argument is not changed."""
    weights = weights or Weights()
    return at_lengths_that_fit(lambda lengths: _normal_form(model, weights, lengths), lambda form: form.shapes)


def _normal_form(model: onnx.ModelProto, weights: Weights, lengths: tuple[int, int]) -> NormalForm:
    initializers = {t.name: t for t in model.graph.initializer}
    if model.functions:
        model = inline_functions(model)
    frame = frame_of(model)
    frame.functions.extend(model.functions)
    _hide_defaults_of_inputs(frame, initializers)
    _write_out_sparse(frame.graph, initializers)
    nodes, constants = _constants_to_initializers(model.graph, initializers)
    version = max((o.version for o in frame.opset_import if o.domain in ("", "ai.onnx")), default=1)
    outputs = [value.name for value in frame.graph.output]
    nodes = _to_inference_form(nodes, outputs, version)
    nodes = _split_merged_weights(nodes, outputs, initializers, constants, weights)
    nodes = _without_idle_transposes(nodes, outputs)
    _name_nodes(nodes)
    _split_shared_statistics(nodes, initializers)
    shapes = ShapeInference(frame, constants, initializers, weights.array, lengths)
    nodes = fold(nodes, outputs, initializers, shapes)
    nodes, reads, needed = live(nodes, outputs)
    _keep_needed(frame.graph, nodes, needed)
    kept = {name: tensor for name, tensor in initializers.items() if name in needed}
    return NormalForm(frame, nodes, reads, kept, weights, shapes)


def _keep_needed(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], needed: Collection[str]) -> None:
    if graph.sparse_initializer:
        replace(graph.sparse_initializer, [t for t in graph.sparse_initializer if t.values.name in needed])
    if graph.value_info:
        made = {name for node in nodes for name in node.output}
        kept = [value for value in graph.value_info if value.name in made]
        if len(kept) < len(graph.value_info):
            replace(graph.value_info, kept)


def _hide_defaults_of_inputs(frame: onnx.ModelProto, initializers: Collection[str]) -> None:
    """Before IR version 4 every initializer had to be an input too; a weight is not what a user feeds."""
    weights = {*initializers, *(t.values.name for t in frame.graph.sparse_initializer)}
    kept = [value for value in frame.graph.input if value.name not in weights]
    if len(kept) < len(frame.graph.input):
        replace(frame.graph.input, kept)
        frame.ir_version = max(frame.ir_version, 4)


def _write_out_sparse(graph: onnx.GraphProto, initializers: dict[str, onnx.TensorProto]) -> None:
    """Make sparse initializers dense, except for the largest, which stay and are no weights."""
    kept = []
    for tensor in graph.sparse_initializer:
        dense = _dense(tensor)
        if dense is None:
            kept.append(tensor)
        else:
            initializers[tensor.values.name] = numpy_helper.from_array(dense, tensor.values.name)
    if len(kept) < len(graph.sparse_initializer):
        replace(graph.sparse_initializer, kept)


def _dense(tensor: onnx.SparseTensorProto) -> NDArray[np.generic] | None:
    shape = tuple(tensor.dims)
    if np.prod(shape, dtype=np.float64) > _LARGEST_DENSE:
        return None
    values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense


def _name_nodes(nodes: list[onnx.NodeProto]) -> None:
    """Name the nodes without a name after their operator and place, and number those that share one."""
    names = [node.name for node in nodes]
    seen = Counter(names)
    taken = set(seen) - {""}
    counts: Counter[str] = Counter()
    for index, (node, given) in enumerate(zip(nodes, names, strict=True)):
        if given and seen[given] == 1:
            continue
        name = stem = given or f"{node.op_type}_{index}"
        while name in taken:
            counts[stem] += 1
            name = f"{stem}_{counts[stem]}"
        taken.add(name)
        node.name = name


def _to_inference_form(nodes: list[onnx.NodeProto], outputs: list[str], version: int) -> list[onnx.NodeProto]:
    """Normalise batches by given statistics, drop nothing out, in subgraphs too; `version` is the operator set's.

    The nodes are changed in place; the list that is returned has some more where statistics are given out.
    """
    result = []
    used: set[str] | None = None
    for node in nodes:
        result.append(node)
        if has_subgraph(node):
            for graph in subgraphs(node):
                inner = _to_inference_form(list(graph.node), [value.name for value in graph.output], version)
                if len(inner) > len(graph.node):
                    replace(graph.node, inner)
        if node.op_type not in ("BatchNormalization", "Dropout") or not is_standard(node):
            continue
        _drop_attributes(node, {"training_mode", "is_test"})
        if version < 7:  # there, training is the default
            node.attribute.append(onnx.helper.make_attribute("is_test", 1))
        if node.op_type == "Dropout":
            del node.input[2:]
        elif len(node.output) > 1:
            if used is None:
                used = {name for each in nodes for name in read_by(each)}.union(outputs)
            result += _unchanged_statistics(node, used)
            del node.output[1:]
    return result


def _unchanged_statistics(node: onnx.NodeProto, used: set[str]) -> list[onnx.NodeProto]:
    """In inference the running mean and variance that a BatchNormalization gives are those that it was given."""
    return [
        onnx.helper.make_node("Identity", [node.input[3 + at % 2]], [name])
        for at, name in enumerate(node.output[1:])
        if name in used
    ]


def _drop_attributes(node: onnx.NodeProto, names: set[str]) -> None:
    kept = [a for a in node.attribute if a.name not in names]
    if len(kept) < len(node.attribute):
        replace(node.attribute, kept)


def _constants_to_initializers(
    graph: onnx.GraphProto, initializers: dict[str, onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """Copies of the nodes without Constants, which become initializers; the names of those."""
    constants = set()
    outputs = {v.name for v in graph.output}
    nodes = []
    for node in graph.node:
        value = _constant_value(node) if node.op_type == "Constant" and is_standard(node) else None
        if value is None or node.output[0] in outputs:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            nodes.append(copy)
        else:
            initializers[node.output[0]] = value
            constants.add(node.output[0])
    return nodes, constants


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant: the node's own tensor where it holds one."""
    if not node.attribute or node.attribute[0].ref_attr_name:
        return None
    attribute: onnx.AttributeProto = node.attribute[0]
    match attribute.name:
        case "value":
            return attribute.t
        case "sparse_value":
            dense = _dense(attribute.sparse_tensor)
            return None if dense is None else numpy_helper.from_array(dense)
        case "value_float":
            return numpy_helper.from_array(np.array(attribute.f, np.float32))
        case "value_floats":
            return numpy_helper.from_array(np.array(attribute.floats, np.float32))
        case "value_int":
            return numpy_helper.from_array(np.array(attribute.i, np.int64))
        case "value_ints":
            return numpy_helper.from_array(np.array(attribute.ints, np.int64))
        case _:
            return None


def _split_merged_weights(
    nodes: list[onnx.NodeProto],
    outputs: Collection[str],
    initializers: dict[str, onnx.TensorProto],
    constants: set[str],
    weights: Weights,
) -> list[onnx.NodeProto]:
    """Exporters merge equal tensors and put an Identity before the copies: those that were merged are taken apart.

    Tensors of a single value (scales of one, biases of zero) are equal by chance of how they start; any other that is
    found twice is tied in the source, if only by way of a computation, and is read under one name. What a subgraph
    reads keeps its Identity.
    """
    kept = []
    tied: dict[str, str] = {}
    inner = {name for node in nodes if has_subgraph(node) for name in set(read_by(node)).difference(node.input)}
    for node in nodes:
        if tied and not tied.keys().isdisjoint(node.input):
            node.input[:] = [tied.get(name, name) for name in node.input]
        if node.op_type == "Identity" and is_standard(node):
            source, name = node.input[0], node.output[0]
            if source in initializers and name not in outputs and name not in inner:
                if not _is_uniform(weights.array(initializers[source])):
                    tied[name] = source
                    continue
                initializers[name] = initializers[source]
                if source in constants:
                    constants.add(name)
                continue
        kept.append(node)
    return kept


def _without_idle_transposes(nodes: list[onnx.NodeProto], outputs: Collection[str]) -> list[onnx.NodeProto]:
    """Drop Transposes whose permutation moves nothing, as some exporters write: what they read is read in their place.

    onnxruntime 1.19 merges any Transpose before a Gemm into the Gemm as if it moved both axes, and so computes
    something else, or fails. Those that give a graph output, or that a subgraph reads, stay.
    """
    idle = {node.output[0] for node in nodes if node.op_type == "Transpose" and is_standard(node) and _is_idle(node)}
    if not idle:
        return nodes
    idle -= {name for node in nodes if has_subgraph(node) for name in set(read_by(node)).difference(node.input)}
    idle.difference_update(outputs)
    same: dict[str, str] = {}
    kept = []
    for node in nodes:
        if not same.keys().isdisjoint(node.input):
            node.input[:] = [same.get(name, name) for name in node.input]
        if node.output and node.output[0] in idle:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    return kept


def _is_idle(node: onnx.NodeProto) -> bool:
    order = [list(a.ints) for a in node.attribute if a.name == "perm"]
    return bool(order) and order[0] == list(range(len(order[0])))


def _is_uniform(array: NDArray[np.generic]) -> bool:
    flat = array.reshape(-1)
    return bool(flat.size < 2 or (flat[0] == flat[-1] and (flat == flat[0]).all()))


def _split_shared_statistics(nodes: list[onnx.NodeProto], initializers: dict[str, onnx.TensorProto]) -> None:
    """Give every BatchNormalization a running mean and variance of its own: what is equal today will not stay so."""
    normalisations = [n for n in nodes if n.op_type == "BatchNormalization" and is_standard(n)]
    if not normalisations:
        return
    statistics = {name for node in normalisations for name in node.input[3:] if name in initializers}
    readers = Counter(name for node in nodes for name in read_by(node) if name in statistics)
    if max(readers.values(), default=0) < 2:
        return
    names = chain(initializers, *(chain(node.input, node.output) for node in nodes))
    taken = {name for name in names if ".running_" in name}  # new names are of that form alone
    for node in normalisations:
        for position, role in ((3, "running_mean"), (4, "running_var")):
            name = node.input[position]
            if readers[name] < 2:
                continue
            readers[name] -= 1
            own = f"{node.name}.{role}"
            while own in taken:
                own += "_"
            taken.add(own)
            initializers[own] = initializers[name]
            node.input[position] = own
