"""Regions against their definition: what no longer reaches an output once a tensor is dropped."""

from __future__ import annotations

import onnx
from hypothesis import given, settings

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.space.regions import Regions
from tests.random_graphs import networks


def reaching(graph: TraceGraph, without: str | None = None) -> set[int]:
    """The operators from which a path leads to a graph output, with one tensor dropped."""
    wanted = set(graph.outputs) - {without}
    found = set()
    for index in reversed(range(len(graph.nodes))):
        if wanted & set(graph.nodes[index].output):
            found.add(index)
            wanted |= set(graph.reads[index]) - {without}
    return found


@settings(max_examples=60)
@given(networks())
def test_a_region_is_what_only_reaches_the_outputs_through_the_tensor(model: onnx.ModelProto) -> None:
    graph = TraceGraph.of(model)
    regions = Regions(graph)
    alive = reaching(graph)
    for tensor in graph.producer:
        dead = sorted(alive - reaching(graph, tensor))
        assert regions.region(tensor) == dead
        assert [n for n in range(len(graph.nodes)) if regions.contains(tensor, n)] == dead


@settings(max_examples=60)
@given(networks())
def test_parents_are_the_innermost_enclosing_tensors(model: onnx.ModelProto) -> None:
    graph = TraceGraph.of(model)
    regions = Regions(graph)
    tensors = list(graph.producer)[::2]
    parents = regions.parents(tensors)
    sizes = {t: len(regions.region(t)) for t in tensors}
    for tensor in tensors:
        around = [t for t in tensors if regions.encloses(t, tensor)]
        assert all(set(regions.region(tensor)) < set(regions.region(t)) for t in around)
        innermost = min(around, key=sizes.__getitem__, default=None)
        assert parents[tensor] == innermost


def test_an_output_that_nobody_reads_does_not_hide_the_region() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N, 4] x) => (float[N, 2] y) {
            a, unused = Split <axis = 1> (x)
            y = Relu (a)
        }"""
    )
    graph = TraceGraph.of(model)
    assert Regions(graph).region("a") == [0]
