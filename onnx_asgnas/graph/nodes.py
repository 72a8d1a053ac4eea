"""What a node reads, and which nodes are needed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache

import onnx

_GRAPH, _GRAPHS, _UNTYPED = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.UNDEFINED


WITH_SUBGRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Of the standard's operators, those that may have a subgraph."""


def is_standard(node: onnx.NodeProto) -> bool:
    """Is it an operator of the ONNX standard's main domain."""
    return node.domain in ("", "ai.onnx")


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies and branches of If, Loop, Scan and their like."""
    found: list[onnx.GraphProto] = []
    if not has_subgraph(node):
        return found
    for attribute in node.attribute:
        kind = attribute.type
        if kind == _GRAPH or (kind == _UNTYPED and attribute.HasField("g")):
            found.append(attribute.g)
        elif kind in (_GRAPHS, _UNTYPED):
            found += attribute.graphs
    return found


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Does it have a body or a branch."""
    if node.op_type not in WITH_SUBGRAPHS and is_standard(node):
        return False
    for attribute in node.attribute:
        kind = attribute.type
        if kind in (_GRAPH, _GRAPHS) or (kind == _UNTYPED and (attribute.HasField("g") or attribute.graphs)):
            return True
    return False


def read_by(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, those that its subgraphs capture from outside included."""
    names = [name for name in node.input if name]
    if node.op_type in WITH_SUBGRAPHS or not is_standard(node):
        for graph in subgraphs(node):
            names += captured_by(graph)
    return names


def captured_by(graph: onnx.GraphProto) -> list[str]:
    """The tensors that a subgraph reads from outside."""
    inner = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    inner |= {t.values.name for t in graph.sparse_initializer}
    inner.update(name for node in graph.node for name in node.output)
    outer = [name for node in graph.node for name in read_by(node)] + [v.name for v in graph.output]
    return [name for name in dict.fromkeys(outer) if name not in inner]


def live(
    nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]
) -> tuple[list[onnx.NodeProto], list[list[str]], set[str]]:
    """The nodes that these outputs need, without optional outputs that nobody reads; what each reads; all of that."""
    needed = set(outputs)
    kept, reads = [], []
    for node in reversed(nodes):
        names = list(node.output)
        if not any([name in needed for name in names if name]):
            continue
        if len(names) > 1:
            required = _required_outputs(node.op_type) if is_standard(node) else len(names)
            while len(node.output) > required and node.output[-1] not in needed:
                node.output.pop()
        kept.append(node)
        reads.append(read_by(node))
        needed.update(reads[-1])
    return kept[::-1], reads[::-1], needed


def remove_dead(graph: onnx.GraphProto) -> None:
    """Drop, in place, the nodes, optional outputs, initializers and value infos that no graph output needs."""
    kept, _, needed = live(graph.node, [value.name for value in graph.output])
    if len(kept) < len(graph.node):
        replace(graph.node, kept)
    _keep(graph.initializer, [t.name in needed for t in graph.initializer])
    _keep(graph.sparse_initializer, [t.values.name in needed for t in graph.sparse_initializer])
    made = {name for node in graph.node for name in node.output}
    _keep(graph.value_info, [v.name in made for v in graph.value_info])


def replace(repeated: object, items: Iterable[object]) -> None:
    """Put copies of these items in the place of what a repeated field holds; they may be its own."""
    copies = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)  # type: ignore[attr-defined]
        copies.append(copy)
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(copies)  # type: ignore[attr-defined]


def _keep(repeated: object, wanted: Sequence[bool]) -> None:
    """Delete the others where they stand, so that what stays is not copied."""
    for at in reversed(range(len(wanted))):
        if not wanted[at]:
            del repeated[at]  # type: ignore[attr-defined]


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
