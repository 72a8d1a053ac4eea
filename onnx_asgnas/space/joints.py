"""Joints of a graph: where a zero operand may be dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule


@dataclass(frozen=True, slots=True)
class JointTree:
    """A joint with the sums that only feed it: one n-ary joint. `operands` are the tensors that enter it."""

    root: int
    nodes: tuple[int, ...]
    operands: tuple[str, ...]


class Joints:
    """All joints; Adds and Sums whose only consumer is an Add or Sum belong to that one."""

    def __init__(self, graph: TraceGraph, rules: Sequence[Rule | None]) -> None:
        self._graph = graph
        self.rules = {i: rule.joint for i, rule in enumerate(rules) if rule is not None and rule.joint is not None}
        roots: dict[int, int] = {}
        for index in sorted(self.rules, reverse=True):
            roots[index] = roots[self._absorber(index)] if self._absorber(index) >= 0 else index
        self.inner = frozenset(
            name for index, root in roots.items() if index != root for name in graph.nodes[index].output
        )
        members: dict[int, list[int]] = {}
        for index, root in sorted(roots.items()):
            members.setdefault(root, []).append(index)
        self.trees = {root: self._tree(root, nodes) for root, nodes in members.items()}
        self.tree_of = {node: tree for tree in self.trees.values() for node in tree.nodes}

    def _absorber(self, index: int) -> int:
        """The sum that alone reads this sum; -1 where there is none."""
        name = self._graph.nodes[index].output[0]
        readers = self._graph.consumers.get(name, [])
        if self.rules[index].axis is not None or len(readers) != 1 or self._graph.is_output(name):
            return -1
        reader = self.rules.get(readers[0])
        return readers[0] if reader is not None and reader.axis is None else -1

    def _tree(self, root: int, nodes: list[int]) -> JointTree:
        names = [self._graph.nodes[i].input[p] for i in nodes for p in self.rules[i].operands]
        operands = [name for name in dict.fromkeys(names) if name not in self.inner]
        return JointTree(root, tuple(nodes), tuple(operands))

    def is_operand(self, node: int, tensor: str) -> bool:
        """Does this node join the tensor, everywhere that it reads it."""
        joint = self.rules.get(node)
        if joint is None:
            return False
        return all(p in joint.operands for p, name in enumerate(self._graph.nodes[node].input) if name == tensor)

    def concats_of(self, tensor: str) -> list[tuple[int, int]]:
        """The Concats that join this tensor with others, each with the axis along which it does."""
        axes = {n: self.rules[n].axis for n in self._graph.consumers.get(tensor, ()) if n in self.rules}
        return [(node, axis) for node, axis in axes.items() if axis is not None]

    def stands_without(self, tree: JointTree, gone: frozenset[str] | set[str]) -> bool:
        """Do the operands that remain have the output's shape, or does none remain."""
        left = [name for name in tree.operands if name not in gone]
        if not left or self.rules[tree.root].axis is not None:
            return True
        output = self._graph.nodes[tree.root].output[0]
        for at in (0, 1):
            shapes = [self._graph.sizes(name)[at] for name in left]
            whole = self._graph.sizes(output)[at]
            if whole is None:
                return False
            known = [shape for shape in shapes if shape is not None]
            if whole not in known and (len(known) < len(left) or np.broadcast_shapes(*known) != whole):
                return False
        return True
