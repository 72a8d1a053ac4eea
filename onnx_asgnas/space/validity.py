"""Validity: does every output still depend, by value, on each input that it depended on.

An activation is ZERO (known to be zero), CONSTANT (depends on no graph input) or LIVE. Here these three are one bit
(zero) and a set of graph inputs (empty unless LIVE); a third one marks what is not finite, and so never counts as zero
where it is multiplied. Removals are applied one after another, each updates only what it
changes, and can be undone.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule, counted_parameters, rule_of
from onnx_asgnas.space.cost import Cost, SlicedAxes, elements
from onnx_asgnas.space.joints import Joints, JointTree
from onnx_asgnas.space.regions import Regions
from onnx_asgnas.space.structures import Structure

_SMALL = 65_536
"""A constant that is no parameter and larger than this is not searched for being all zero."""
_BROADCASTING = frozenset({"Add", "Sum", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu"})


class RemovalState:
    """The network with some of its structures removed: what is zero, what is constant, what is dead, what is left.

    `erase` drops a structure, `take` does if the network stays valid, `undo` takes the last one back. Of a set of
    removals the order does not matter.
    """

    def __init__(
        self,
        graph: TraceGraph,
        rules: Sequence[Rule | None],
        joints: Joints,
        structures: Sequence[Structure],
        protected: Sequence[str] = (),
    ) -> None:
        self._graph, self._rules, self._joints, self._structures = graph, rules, joints, structures
        parameters = counted_parameters(graph, rules)
        self._parameters = {name: elements(graph, name) for name in parameters}
        self._minimal = {s.tensor for s in structures if s.minimal}
        self._index = {s.tensor: at for at, s in enumerate(structures)}
        self._needs_no_zeros = {s.tensor for s in structures if not s.zeroed}
        self._trail: list[tuple[Any, Any, Any]] = []
        self._marks: list[int] = []
        self._zero: dict[str, bool] = {}
        self._pole: dict[str, bool] = {}
        self._depends: dict[str, int] = {}
        self._users = {name: len(readers) for name, readers in graph.consumers.items()}
        self._computed = [True] * len(graph.nodes)
        self._dropped: dict[tuple[int, int], bool] = {}
        self._totals = {"params": sum(self._parameters.values()), "macs": 0, "minimal": 0, "broken": 0, "lost": 0}
        self._erased: dict[str, bool] = {}
        self._broken: dict[str | int, bool] = {}
        self._constant: dict[str, bool] = {}
        self._start(parameters)
        self._needs = {name: self._depends.get(name, 0) for name in graph.outputs}
        names = frozenset(protected)
        self._protected = frozenset(index for index, node in enumerate(graph.nodes) if node.name in names)
        self._full_params = int(self._totals["params"])

    def _start(self, parameters: Sequence[str]) -> None:
        trained = set(parameters)
        for name in self._graph.initializers:
            self._zero[name] = name not in trained and self._is_zero_constant(name)
            self._depends[name] = 0
        for bit, name in enumerate(self._graph.inputs):
            self._zero[name], self._depends[name] = False, 1 << bit
        for index, node in enumerate(self._graph.nodes):
            zero, pole, depends = self._value(index)
            for name in node.output:
                if name:
                    self._zero[name], self._pole[name], self._depends[name] = zero, pole, depends
            rule = self._rules[index]
            self._totals["macs"] += rule.macs if rule is not None else 0
        self._full_depends = dict(self._depends)

    def _is_zero_constant(self, name: str) -> bool:
        tensor = self._graph.initializers[name]
        small = int(np.prod(tensor.dims, dtype=np.int64)) <= _SMALL
        return small and not self._graph.array(name).astype(bool).any()

    def erase(self, structure: int) -> bool:
        """Drop a structure; False if the network is not valid any more (it is dropped all the same)."""
        self._marks.append(len(self._trail))
        self._revalue(self._structures[structure].tensor, {})
        return self.valid

    def take(self, structure: int) -> bool:
        """Drop a structure if the network stays valid; if not, nothing changes, and False comes back quickly."""
        self._marks.append(len(self._trail))
        if self._revalue(self._structures[structure].tensor, self._bottlenecks) and self.valid:
            return True
        self.undo()
        return False

    def erase_all(self, structures: Sequence[int]) -> list[int]:
        """Drop these structures: all of them if that is valid, else the largest first, as far as that goes.

        Gives those that were dropped; the others are gone with them, or have to stay. A part of a valid set is not
        always valid: what is left of a block may be constant, and to hold that may take more than the block did.
        """
        order = sorted(structures, key=lambda at: (-len(self._structures[at].region), at))
        dropped = []
        for at in order:
            if not self.is_gone(self._structures[at].tensor):
                self.erase(at)
                dropped.append(at)
        if self.valid:
            return dropped
        for _ in dropped:
            self.undo()
        return [at for at in order if not self.is_gone(self._structures[at].tensor) and self.take(at)]

    def undo(self) -> None:
        """Take the last `erase` back."""
        mark = self._marks.pop()
        while len(self._trail) > mark:
            table, key, old = self._trail.pop()
            if old is None:
                del table[key]
            else:
                table[key] = old

    @property
    def valid(self) -> bool:
        """Does every output still depend on each of its inputs, and can what became constant be folded exactly.

        What is protected has to stay. What is folded takes room: a network that would hold more parameters than the
        full one is not valid either.
        """
        if self._totals["broken"] or self._totals["lost"]:
            return False
        if any(self._depends.get(name, 0) != needs for name, needs in self._needs.items()):
            return False
        return not self.constants_read() or self.cost().params <= self._full_params

    @property
    def removed(self) -> int:
        """How many minimal structures are gone, chosen or dead."""
        return int(self._totals["minimal"])

    @property
    def computed(self) -> Sequence[bool]:
        """Which nodes are still computed, in the graph's order."""
        return self._computed

    @property
    def erased(self) -> tuple[int, ...]:
        """The structures that are dropped, also those that became zero because others are."""
        return tuple(sorted(self._index[tensor] for tensor in self._erased))

    def is_gone(self, tensor: str) -> bool:
        """Is nothing left that reads this tensor."""
        return not self._graph.is_output(tensor) and self._users.get(tensor, 0) == 0

    def is_live(self, tensor: str) -> bool:
        """Does this tensor depend on an input by value."""
        return bool(self._depends.get(tensor, 0))

    def dropped_operands(self) -> list[tuple[int, int]]:
        """The (node, input position) of operands that joints which are still computed drop."""
        return [key for key, dropped in self._dropped.items() if dropped and self._computed[key[0]]]

    def constants_read(self) -> list[str]:
        """The activations that became constant, and that something still computed reads."""
        names = [name for name, constant in self._constant.items() if constant]
        return sorted(names, key=self._graph.producer.__getitem__)

    def dead_initializers(self) -> tuple[str, ...]:
        """The parameters that nothing reads any more."""
        return tuple(name for name in self._parameters if self.is_gone(name))

    def cost(self) -> Cost:
        """What the model that construct would give costs."""
        sliced = SlicedAxes(self._graph)
        for tensor in self._erased:
            structure = self._structures[self._index[tensor]]
            for piece in structure.zeroed + structure.cut:
                if piece.axis is not None and not self.is_gone(piece.initializer):
                    sliced.cut(piece.initializer, piece.axis, piece.indices)
        params, macs = float(self._totals["params"]), float(self._totals["macs"])
        for name in sliced.names():
            gone = 1 - sliced.left(name)
            params -= self._parameters.get(name, 0) * gone
            for node in self._graph.consumers[name]:
                rule = self._rules[node]
                if rule is not None and self._computed[node] and self._is_weight(node, rule, name):
                    macs -= rule.macs * gone
        return Cost(params=round(params) + self._folded_parameters(), macs=round(macs))

    def _is_weight(self, node: int, rule: Rule, name: str) -> bool:
        inputs = self._graph.nodes[node].input
        return any(role == "weight" and inputs[position] == name for position, role in rule.parameters.items())

    def _folded_parameters(self) -> int:
        """How many numbers construct puts where a parameter may stand, because they depend on no input any more."""
        names = self.constants_read()
        view = self._graph.with_constants(names) if names else self._graph
        found = set()
        for name in names:
            for node in self._live_readers(name):
                rule, inputs = rule_of(view, node), self._graph.nodes[node].input
                if rule is not None and any(inputs[position] == name for position in rule.parameters):
                    found.add(name)
        return sum(int(np.prod(self._graph.size(name) or (0,), dtype=np.int64)) for name in found)

    def _set(self, table: Any, key: Any, value: Any) -> None:
        old = table[key] if isinstance(table, list) else table.get(key)
        self._trail.append((table, key, old))
        table[key] = value

    def _value(self, index: int) -> tuple[bool, bool, int]:
        """Is what a node gives all zero, may it be infinite or NaN, and on which graph inputs does it depend."""
        rule, node = self._rules[index], self._graph.nodes[index]
        depends, pole = 0, False
        for name in self._graph.reads[index]:
            depends |= self._depends.get(name, 0)
            pole |= self._pole.get(name, False)
        if rule is None:
            return False, pole, depends
        if rule.shape_only:
            return False, False, 0
        zeros = tuple(not name or self._zero.get(name, False) for name in node.input)
        if pole or any(zeros[position] for position in rule.poles):
            return False, True, depends
        zero = bool(node.input) and rule.zero(zeros)
        return zero, False, 0 if zero else depends

    @cached_property
    def _bottlenecks(self) -> dict[str, int]:
        """Tensors that all ways of some inputs lead through: where one loses such an input, the outputs do."""
        regions = Regions(self._graph)
        found: dict[str, int] = {}
        for bit, name in enumerate(self._graph.inputs):
            if any(needs >> bit & 1 for needs in self._needs.values()):
                for tensor in regions.bottlenecks(name):
                    found[tensor] = found.get(tensor, 0) | 1 << bit
        return found

    def _revalue(self, tensor: str, bottlenecks: Mapping[str, int]) -> bool:
        """Make a tensor zero and follow what that changes forward, then what dies backward.

        Gives up, and returns False, as soon as a bottleneck does not depend any more on an input that it has to.
        """
        changed = [tensor]
        self._set(self._erased, tensor, True)
        self._set(self._zero, tensor, True)
        self._set(self._depends, tensor, 0)
        queue = list(dict.fromkeys(self._graph.consumers.get(tensor, ())))
        heapq.heapify(queue)
        last = -1
        while queue:
            index = heapq.heappop(queue)
            if index == last:
                continue
            last = index
            value = zero, pole, depends = self._value(index)
            for name in self._graph.nodes[index].output:
                if not name or name in self._erased:
                    continue
                if (self._zero[name], self._pole[name], self._depends[name]) == value:
                    continue
                if self._depends[name] & ~depends & bottlenecks.get(name, 0):
                    return False
                self._set(self._zero, name, zero)
                self._set(self._pole, name, pole)
                self._set(self._depends, name, depends)
                if zero and name in self._needs_no_zeros:
                    self._set(self._erased, name, True)
                changed.append(name)
                for reader in self._graph.consumers.get(name, ()):
                    heapq.heappush(queue, reader)
        stopped = [node for name in changed for node in self._release(name)]
        readers = [node for name in changed for node in self._graph.consumers.get(name, ())]
        self._check(changed, list(dict.fromkeys([*stopped, *readers])))
        return True

    def _release(self, name: str) -> list[int]:
        """Drop a zero tensor where joints read it, and stop computing what depends on no input any more.

        A Concat drops structures only: of another tensor it is not known what owns its channels behind the Concat.
        Gives the nodes that are not computed any more.
        """
        if self._zero[name]:
            for node in dict.fromkeys(self._graph.consumers.get(name, ())):
                joint = self._joints.rules.get(node)
                drops = joint is not None and (joint.axis is None or name in self._erased)
                if joint is not None and drops and self._computed[node]:
                    for position in joint.operands:
                        before = self._dropped.get((node, position))
                        if self._graph.nodes[node].input[position] == name and not before:
                            self._set(self._dropped, (node, position), True)
                            self._unuse(name)
        producer = self._graph.producer.get(name)
        if producer is not None and (self._became_constant(name, producer) or self.is_gone(name)):
            return self._stop(producer)
        return []

    def _became_constant(self, name: str, producer: int) -> bool:
        """Does an activation depend on no input, but did before; or was one that never did erased, or all it sums."""
        if self._depends[name]:
            return False
        joint = self._joints.rules.get(producer)
        empty = joint is not None and all(self._dropped.get((producer, position)) for position in joint.operands)
        return empty or self._full_depends[name] != 0 or name in self._erased

    def _stop(self, node: int) -> list[int]:
        """This node is not computed any more: nothing is read for it. Gives all nodes that stop with it."""
        stack, stopped = [node], []
        while stack:
            index = stack.pop()
            if not self._computed[index]:
                continue
            self._set(self._computed, index, False)
            stopped.append(index)
            if index in self._protected:
                self._set(self._totals, "lost", self._totals["lost"] + 1)
            rule = self._rules[index]
            if rule is not None and rule.macs:
                self._set(self._totals, "macs", self._totals["macs"] - rule.macs)
            proto = self._graph.nodes[index]
            dropped = [proto.input[p] for p in range(len(proto.input)) if self._dropped.get((index, p))]
            for name in self._graph.reads[index]:
                if name in dropped:
                    dropped.remove(name)
                elif self._unuse(name) and name in self._graph.producer:
                    stack.append(self._graph.producer[name])
        return stopped

    def _unuse(self, name: str) -> bool:
        """One reader less; True if with it the node that makes the tensor has nothing left to make."""
        self._set(self._users, name, self._users[name] - 1)
        if self._users[name] or self._graph.is_output(name):
            return False
        if name in self._minimal:
            self._set(self._totals, "minimal", self._totals["minimal"] + 1)
        if name in self._parameters:
            self._set(self._totals, "params", self._totals["params"] - self._parameters[name])
        producer = self._graph.producer.get(name)
        if producer is None:
            return False
        outputs = [output for output in self._graph.nodes[producer].output if output]
        return all(self.is_gone(output) for output in outputs)

    def _check(self, names: Sequence[str], nodes: Sequence[int]) -> None:
        """Bring up to date what is broken or constant among these tensors, what these nodes read, and their joints."""
        trees = self._joints.tree_of
        for root in {trees[node].root for node in nodes if node in trees}:
            self._mark_broken(root, self._computed[root] and self._has_lost_shape(trees[root]))
        read = (name for node in nodes for name in self._graph.reads[node] if name in self._graph.producer)
        for name in dict.fromkeys([*names, *read]):
            producer = self._graph.producer.get(name)
            stopped = producer is not None and not self._computed[producer]
            readers = self._live_readers(name) if stopped else []
            if bool(readers) != self._constant.get(name, False):
                self._set(self._constant, name, bool(readers))
            infinite = self._pole[name] and not self.is_gone(name)
            self._mark_broken(name, infinite or any(not self._folds_into(name, node) for node in readers))

    def _mark_broken(self, key: str | int, broken: bool) -> None:
        if broken != self._broken.get(key, False):
            self._set(self._broken, key, broken)
            self._set(self._totals, "broken", self._totals["broken"] + (1 if broken else -1))

    def _has_lost_shape(self, tree: JointTree) -> bool:
        return not self._joints.stands_without(tree, {name for name in tree.operands if self._zero[name]})

    def _live_readers(self, name: str) -> list[int]:
        return [
            node
            for node in self._graph.consumers.get(name, ())
            if self._computed[node]
            and any(
                read == name and not self._dropped.get((node, position))
                for position, read in enumerate(self._graph.nodes[node].input)
            )
        ]

    def _folds_into(self, name: str, node: int) -> bool:
        """Can this constant be a number: where its batch is open, another operand must give it by broadcasting."""
        size = self._graph.shape(name)
        if size is not None and None not in size:
            return True
        proto = self._graph.nodes[node]
        if size is None or None in size[1:] or proto.op_type not in _BROADCASTING:
            return False
        whole = self._graph.sizes(proto.output[0])
        others = [n for n in proto.input if n and n != name and self._depends.get(n, 0)]
        return any(whole == self._graph.sizes(other) for other in others)
