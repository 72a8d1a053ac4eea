"""Regions: what is dead once a tensor is dropped, by post-dominance over tensors and operators."""

from __future__ import annotations

from collections.abc import Iterable

from onnx_asgnas.graph import TraceGraph


class Regions:
    """The post-dominator tree of a graph without dead code.

    An operator lies in the region of a tensor when it reaches the graph's outputs only through it. Regions nest or are
    disjoint. One pass in reverse topological order with lowest common ancestors by jump pointers; a region is an
    interval of a depth-first numbering of the tree.
    """

    def __init__(self, graph: TraceGraph) -> None:
        self._graph = graph
        self._nodes = len(graph.nodes)
        self._names = [name for node in graph.nodes for name in node.output if name]
        self._vertex = {name: self._nodes + 1 + at for at, name in enumerate(self._names)}
        self._sink = self._nodes
        size = self._nodes + 1 + len(self._names)
        self._parent, self._jump, self._depth = [self._sink] * size, [self._sink] * size, [0] * size
        for index in reversed(range(self._nodes)):
            for name in graph.nodes[index].output:
                if name:
                    ends = [self._sink] if graph.is_output(name) else []
                    self._attach(self._vertex[name], ends + graph.consumers.get(name, []))
            used = [name for name in graph.nodes[index].output if name in graph.consumers or graph.is_output(name)]
            self._attach(index, [self._vertex[name] for name in used])
        self._enter, self._leave, self._order = self._number(size)

    def contains(self, tensor: str, node: int) -> bool:
        """Does the operator reach the outputs only through this tensor."""
        vertex = self._vertex[tensor]
        return self._enter[vertex] <= self._enter[node] < self._leave[vertex]

    def region(self, tensor: str) -> list[int]:
        """The operators that reach the outputs only through this tensor, in topological order."""
        vertex = self._vertex[tensor]
        inside = self._order[self._enter[vertex] : self._leave[vertex]]
        return sorted(v for v in inside if v < self._nodes)

    def encloses(self, outer: str, inner: str) -> bool:
        """Does the inner tensor reach the outputs only through the outer one."""
        vertex = self._vertex[outer]
        return outer != inner and self._enter[vertex] <= self._enter[self._vertex[inner]] < self._leave[vertex]

    def bottlenecks(self, graph_input: str) -> list[str]:
        """The tensors that every way from a graph input to the outputs leads through."""
        ends = [self._sink] if self._graph.is_output(graph_input) else []
        ends += self._graph.consumers.get(graph_input, [])
        vertex = ends[0] if ends else self._sink
        for other in ends[1:]:
            vertex = self._common(vertex, other)
        found = []
        while vertex != self._sink:
            if vertex > self._sink:
                found.append(self._names[vertex - self._sink - 1])
            vertex = self._parent[vertex]
        return found

    def parents(self, tensors: Iterable[str]) -> dict[str, str | None]:
        """For each tensor the innermost other one of them that encloses it."""
        found: dict[str, str | None] = {}
        around: list[str] = []
        for tensor in sorted(tensors, key=lambda name: self._enter[self._vertex[name]]):
            while around and not self.encloses(around[-1], tensor):
                around.pop()
            found[tensor] = around[-1] if around else None
            around.append(tensor)
        return found

    def _attach(self, vertex: int, successors: list[int]) -> None:
        if not successors:
            return  # nobody reads it: it hangs at the sink and contains nothing
        parent = successors[0]
        for other in successors[1:]:
            parent = self._common(parent, other)
        self._parent[vertex] = parent
        self._depth[vertex] = self._depth[parent] + 1
        far = self._jump[parent]
        even = self._depth[parent] - self._depth[far] == self._depth[far] - self._depth[self._jump[far]]
        self._jump[vertex] = self._jump[far] if even else parent

    def _common(self, a: int, b: int) -> int:
        if self._depth[a] < self._depth[b]:
            a, b = b, a
        while self._depth[a] > self._depth[b]:
            a = self._jump[a] if self._depth[self._jump[a]] >= self._depth[b] else self._parent[a]
        while a != b:
            if self._jump[a] != self._jump[b]:
                a, b = self._jump[a], self._jump[b]
            else:
                a, b = self._parent[a], self._parent[b]
        return a

    def _number(self, size: int) -> tuple[list[int], list[int], list[int]]:
        children: list[list[int]] = [[] for _ in range(size)]
        for vertex in range(size):
            if vertex != self._sink:
                children[self._parent[vertex]].append(vertex)
        enter, leave = [0] * size, [0] * size
        order: list[int] = []
        stack = [(self._sink, False)]
        while stack:
            vertex, done = stack.pop()
            if done:
                leave[vertex] = len(order)
                continue
            enter[vertex] = len(order)
            order.append(vertex)
            stack.append((vertex, True))
            stack += [(child, False) for child in children[vertex]]
        return enter, leave, order
