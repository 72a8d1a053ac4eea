"""The normal form that every later stage works on.

In it, every node has a name of its own, constants are initializers, batch normalisation and dropout are in inference
form, shared weights that an exporter only merged are apart again, shape arithmetic that does not depend on an open
dimension is a number, and nothing is dead. Names of tensors, inputs and outputs, opset and metadata are the source's.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas.graph.shapes import ShapeInference


def normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The normal form as a new model; the argument is not changed. It needs a model that onnx.checker accepts."""
    return normalise_with_shapes(model)[0]


def normalise_with_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, ShapeInference]:
    """The normal form, and what shape inference found on the way."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _hide_defaults_of_inputs(result)
    _to_inference_form(result.graph, max((o.version for o in result.opset_import if _is_standard(o.domain)), default=1))
    constants = _constants_to_initializers(result.graph)
    _split_merged_weights(result.graph)
    _name_nodes(result.graph)
    _split_shared_statistics(result.graph)
    shapes = _fold(result, constants)
    remove_dead(result.graph)
    return result, shapes


def remove_dead(graph: onnx.GraphProto) -> None:
    """Drop, in place, the nodes, optional outputs, initializers and value infos that no graph output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output if name):
            required = _required_outputs(node.op_type) if _is_standard(node.domain) else len(node.output)
            while len(node.output) > required and node.output[-1] not in needed:
                node.output.pop()
            kept.append(node)
            needed.update(read_by(node))
    _replace(graph.node, kept[::-1])
    _replace(graph.initializer, [t for t in graph.initializer if t.name in needed])
    _replace(graph.sparse_initializer, [t for t in graph.sparse_initializer if t.values.name in needed])
    made = {name for node in kept for name in node.output}
    _replace(graph.value_info, [v for v in graph.value_info if v.name in made])


def read_by(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, those that its subgraphs capture from outside included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            inner = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            inner |= {name for n in graph.node for name in n.output}
            outer = [name for n in graph.node for name in read_by(n)] + [v.name for v in graph.output]
            names += [name for name in dict.fromkeys(outer) if name not in inner]
    return names


@cache
def _required_outputs(op_type: str) -> int:
    """How many outputs an operator of the standard has to have: those after them may be left out."""
    try:
        outputs = onnx.defs.get_schema(op_type).outputs
    except onnx.defs.SchemaError:
        return sys.maxsize
    options = onnx.defs.OpSchema.FormalParameterOption
    if any(output.option == options.Variadic for output in outputs):
        return sys.maxsize
    return max([at + 1 for at, output in enumerate(outputs) if output.option != options.Optional], default=1)


def _is_standard(domain: str) -> bool:
    return domain in ("", "ai.onnx")


def _replace(repeated: object, items: list[object]) -> None:
    copies = [_copy(item) for item in items]
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(copies)  # type: ignore[attr-defined]


def _copy(item: object) -> object:
    copy = type(item)()
    copy.CopyFrom(item)  # type: ignore[attr-defined]
    return copy


def _hide_defaults_of_inputs(model: onnx.ModelProto) -> None:
    """Before IR version 4 every initializer had to be an input too; a weight is not what a user feeds."""
    weights = {t.name for t in model.graph.initializer}
    if any(v.name in weights for v in model.graph.input):
        _replace(model.graph.input, [v for v in model.graph.input if v.name not in weights])
        model.ir_version = max(model.ir_version, 4)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name the nodes without a name after their operator and place, and number those that share one."""
    seen = Counter(node.name for node in graph.node)
    taken = set(seen) - {""}
    counts: Counter[str] = Counter()
    for index, node in enumerate(graph.node):
        if node.name and seen[node.name] == 1:
            continue
        name = stem = node.name or f"{node.op_type}_{index}"
        while name in taken:
            counts[stem] += 1
            name = f"{stem}_{counts[stem]}"
        taken.add(name)
        node.name = name


def _to_inference_form(graph: onnx.GraphProto, version: int) -> None:
    """Normalise batches by given statistics, drop nothing out, in subgraphs too; `version` is the operator set's."""
    used = {name for node in graph.node for name in read_by(node)} | {value.name for value in graph.output}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _to_inference_form(inner, version)
        if not _is_standard(node.domain) or node.op_type not in ("BatchNormalization", "Dropout"):
            continue
        _drop_attributes(node, {"training_mode", "is_test"})
        if version < 7:  # there, training is the default
            node.attribute.append(onnx.helper.make_attribute("is_test", 1))
        if node.op_type == "Dropout":
            del node.input[2:]
        else:
            nodes += _unchanged_statistics(node, used)
            del node.output[1:]
    if len(nodes) > len(graph.node):
        _replace(graph.node, nodes)


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
        _replace(node.attribute, list(kept))


def _constants_to_initializers(graph: onnx.GraphProto) -> set[str]:
    """Make initializers of the Constant nodes; their names."""
    constants = set()
    outputs = {v.name for v in graph.output}
    kept = []
    for node in graph.node:
        value = _constant_value(node) if node.op_type == "Constant" and _is_standard(node.domain) else None
        if value is None or node.output[0] in outputs:
            kept.append(node)
        else:
            value.name = node.output[0]
            graph.initializer.append(value)
            constants.add(value.name)
    if len(kept) < len(graph.node):
        _replace(graph.node, list(kept))
    return constants


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    tensor = onnx.TensorProto()
    attribute = node.attribute[0]
    match attribute.name:
        case "value":
            tensor.CopyFrom(attribute.t)
        case "value_float":
            tensor.CopyFrom(numpy_helper.from_array(np.array(attribute.f, np.float32)))
        case "value_floats":
            tensor.CopyFrom(numpy_helper.from_array(np.array(attribute.floats, np.float32)))
        case "value_int":
            tensor.CopyFrom(numpy_helper.from_array(np.array(attribute.i, np.int64)))
        case "value_ints":
            tensor.CopyFrom(numpy_helper.from_array(np.array(attribute.ints, np.int64)))
        case _:
            return None
    return tensor


def _split_merged_weights(graph: onnx.GraphProto) -> None:
    """Exporters merge equal tensors and put an Identity before the copies; a weight that is really tied has none."""
    weights = {t.name: t for t in graph.initializer}
    outputs = {v.name for v in graph.output}
    kept = []
    for node in graph.node:
        plain = node.op_type == "Identity" and _is_standard(node.domain)
        if plain and node.input[0] in weights and node.output[0] not in outputs:
            copy = graph.initializer.add()
            copy.CopyFrom(weights[node.input[0]])
            copy.name = node.output[0]
            weights[copy.name] = copy
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        _replace(graph.node, list(kept))


def _split_shared_statistics(graph: onnx.GraphProto) -> None:
    """Give every BatchNormalization a running mean and variance of its own: what is equal today will not stay so."""
    weights = {t.name: t for t in graph.initializer}
    taken = set(weights) | {name for node in graph.node for name in (*read_by(node), *node.output)}
    readers = Counter(name for node in graph.node for name in read_by(node))
    for node in graph.node:
        if node.op_type != "BatchNormalization" or not _is_standard(node.domain):
            continue
        for position, role in ((3, "running_mean"), (4, "running_var")):
            name = node.input[position]
            if readers[name] < 2 or name not in weights:
                continue
            readers[name] -= 1
            copy = graph.initializer.add()
            copy.CopyFrom(weights[name])
            copy.name = f"{node.name}.{role}"
            while copy.name in taken:
                copy.name += "_"
            taken.add(copy.name)
            node.input[position] = copy.name


def _fold(model: onnx.ModelProto, known: set[str]) -> ShapeInference:
    """One pass in topological order: infer shapes, evaluate shape arithmetic, keep as numbers what does not vary."""
    graph = model.graph
    shapes = ShapeInference(model, known)
    outputs = {v.name for v in graph.output}
    folded: set[str] = set()
    kept = []
    for node in graph.node:
        shapes.step(node)
        names = [name for name in node.output if name]
        constants = {name: shapes.constant(name) for name in names}
        if all(v is not None for v in constants.values()) and not outputs.intersection(names):
            folded.update(names)
        else:
            if node.op_type == "Reshape" and _is_standard(node.domain) and len(node.input) == 2:
                _fold_reshape(graph, node, shapes)
            elif node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3 and node.input[2] in folded:
                bias = shapes.constant(node.input[2])
                if bias is not None and not bias.any():
                    node.input.pop()  # computed zeros are an exporter's way to say that there is no bias
            kept.append(node)
    used = {name for node in kept for name in read_by(node)}
    for name in sorted(folded & used):
        value = shapes.constant(name)
        assert value is not None
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
    if len(kept) < len(graph.node):
        _replace(graph.node, list(kept))
    return shapes


def _fold_reshape(graph: onnx.GraphProto, node: onnx.NodeProto, shapes: ShapeInference) -> None:
    """Give a Reshape whose target varies with an open dimension a constant target, with 0 and -1 in its place."""
    name = node.input[1]
    if shapes.constant(name) is not None:
        return
    varying = shapes.varying(name)
    if varying is None:
        return
    target = np.where(varying, -1, shapes.bindings[0].values[name]).astype(np.int64)
    if any(a.name == "allowzero" and a.i for a in node.attribute) and not target.all():
        return
    for axis in np.flatnonzero(varying):
        if shapes.copies(name, int(axis), node.input[0], int(axis)):
            target[axis] = 0
    if (target == -1).sum() > 1:
        return
    constant = f"{node.name}.shape"
    while constant in shapes.bindings[0].types:
        constant += "_"
    graph.initializer.append(numpy_helper.from_array(target, constant))
    shapes.add_constant(constant, target)
    node.input[1] = constant
    _drop_attributes(node, {"allowzero"})
