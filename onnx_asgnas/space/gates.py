"""Gates, so that parameter-free operands of joints (skip connections, poolings) can be erased too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.graph.gates import name_gates
from onnx_asgnas.operators import Rule, parameters_of, rules_of
from onnx_asgnas.space.joints import Joints
from onnx_asgnas.space.regions import Regions
from onnx_asgnas.space.search_space import analyze

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True)
class _Edge:
    """An operand on its way into a joint: the nodes of the joint that read it, and what the gated tensor is called."""

    operand: str
    readers: tuple[int, ...]
    gated: str

    @property
    def gate(self) -> str:
        """The initializer."""
        return f"{self.gated}.gate"


def add_gates(source: ModelSource | TraceGraph) -> onnx.ModelProto:
    """A copy of a model, in normal form, in which the parameter-free operands of joints can be erased.

    Such an operand, a skip connection or a pooling that nothing in its own region trains, is multiplied by a scalar
    initialised to 1, on its way into the joint alone: other readers have it as it was. The product is called
    `<operand>.to.<sum>`, the scalar `<operand>.to.<sum>.gate`. It trains, since the metadata list it (`graph.gates`),
    and makes the operand a removal structure. An operand whose removal would not be exact gets none. The outputs are
    the source's to the bit, and a model that has gates already gets no second ones.
    """
    graph = source if isinstance(source, TraceGraph) else TraceGraph.of(source)
    edges = _edges(graph)
    gated = _with_gates(graph, edges)
    if not edges:
        return gated
    erasable = {structure.tensor for structure in analyze(gated).candidates}
    kept = [edge for edge in edges if edge.gated in erasable]
    return gated if len(kept) == len(edges) else _with_gates(graph, kept)


def _edges(graph: TraceGraph) -> list[_Edge]:
    """The operands of joints of which no parameter is their own."""
    rules = rules_of(graph)
    joints, regions = Joints(graph, rules), Regions(graph)
    found: list[_Edge] = []
    taken = set(graph.producer) | set(graph.initializers) | set(graph.inputs)
    for tree in joints.trees.values():
        if len(tree.operands) < 2:
            continue
        for operand in tree.operands:
            if graph.dtype(operand) not in _FLOATS or not graph.size(operand):
                continue
            if _has_own_parameters(graph, rules, joints, regions, operand):
                continue
            name = f"{operand}.to.{graph.nodes[tree.root].output[0]}"
            while name in taken or f"{name}.gate" in taken:
                name += "_"
            taken.update((name, f"{name}.gate"))
            readers = tuple(node for node in tree.nodes if operand in graph.nodes[node].input)
            found.append(_Edge(operand, readers, name))
    return found


def _has_own_parameters(
    graph: TraceGraph, rules: list[Rule | None], joints: Joints, regions: Regions, operand: str
) -> bool:
    """Does something train in what is dead once the operand is dropped; never where it has other readers too."""
    readers = graph.consumers[operand]
    others = graph.is_output(operand) or operand in graph.captured or operand not in graph.producer
    if others or not all(joints.is_operand(node, operand) for node in readers):
        return False
    return any(parameters_of(graph, node, rules[node]) for node in regions.region(operand))


def _with_gates(graph: TraceGraph, edges: Iterable[_Edge]) -> onnx.ModelProto:
    """The model with a product on each of these edges."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    names = set(graph.gates)
    products: dict[int, list[onnx.NodeProto]] = {}
    for edge in edges:
        one = np.ones(1, helper.tensor_dtype_to_np_dtype(graph.dtype(edge.operand)))
        model.graph.initializer.append(numpy_helper.from_array(one, edge.gate))
        product = helper.make_node("Mul", [edge.operand, edge.gate], [edge.gated], name=edge.gated)
        products.setdefault(min(edge.readers), []).append(product)
        names.add(edge.gate)
        for reader in edge.readers:
            inputs = model.graph.node[reader].input
            for position, name in enumerate(inputs):
                if name == edge.operand:
                    inputs[position] = edge.gated
    nodes = [node for at, own in enumerate(model.graph.node) for node in (*products.get(at, ()), own)]
    ordered = onnx.GraphProto(node=nodes)
    del model.graph.node[:]
    model.graph.node.extend(ordered.node)
    name_gates(model, names)
    return model
