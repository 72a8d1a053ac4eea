"""Removal structures: the hierarchical search space of the paper, found on any graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule, parameters_of
from onnx_asgnas.operators.labelled import Ids, Kind
from onnx_asgnas.space.coupling import Coupling
from onnx_asgnas.space.joints import Joints
from onnx_asgnas.space.regions import Regions

_DEEP = 200
"""How many joints and products the walk for a group goes back through; a group so far away is no longer near."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of an initializer: some indices along one axis, or (axis None) the whole."""

    initializer: str
    axis: int | None = None
    indices: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A zero-invariant group: with all its slices at zero, the part of the network that it names gives zero."""

    name: str
    slices: tuple[Slice, ...]

    def lies_strictly_in(self, other: Group) -> bool:
        """Does the other group hold all that this one holds, and more."""
        return self._lies_in(other) and not other._lies_in(self)

    def _lies_in(self, other: Group) -> bool:
        held: dict[tuple[str, int | None], set[int]] = {}
        for piece in other.slices:
            held.setdefault((piece.initializer, piece.axis), set()).update(piece.indices)
        return all(
            (piece.initializer, None) in held
            or (piece.axis is not None and held.get((piece.initializer, piece.axis), set()).issuperset(piece.indices))
            for piece in self.slices
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """A removal tensor, an activation that only joints read, and what goes with it.

    `segment` are the operators of the chain that ends in it, `region` all that is dead once it is dropped. `variables`
    are the initializers that force it to zero, `zeroed` the slices behind a Concat that are zeroed with it, `cut` those
    that are only cut off. `params` and `macs` are what the region costs. `reason` says why it is not erasable.
    """

    tensor: str
    segment: tuple[str, ...]
    region: tuple[str, ...]
    parent: str | None = None
    minimal: bool = False
    erasable: bool = False
    reason: str = ""
    variables: tuple[str, ...] = ()
    zeroed: tuple[Slice, ...] = ()
    cut: tuple[Slice, ...] = ()
    params: int = 0
    macs: int = 0

    @property
    def group(self) -> Group:
        """The zero-invariant group: whole variables, then slices."""
        return Group(name=self.tensor, slices=tuple(Slice(initializer=v) for v in self.variables) + self.zeroed)


class StructureFinder:
    """Finds the removal structures of a graph (the paper's Algorithm 2, by the definition in the design)."""

    def __init__(self, graph: TraceGraph, rules: Sequence[Rule | None], coupling: Coupling, joints: Joints) -> None:
        self._graph, self._rules, self._coupling, self._joints = graph, rules, coupling, joints
        self._regions = Regions(graph)
        self._activations = [
            list(dict.fromkeys(name for name in reads if name in graph.activations)) for reads in graph.reads
        ]
        self._parameters = [parameters_of(graph, index, rule) for index, rule in enumerate(rules)]
        self._rank = {name: at for at, name in enumerate(dict.fromkeys(n for names in self._parameters for n in names))}

    def find(self) -> list[Structure]:
        """All structures in topological order of their tensors, erasable or with the reason why not."""
        tensors = [t for t in self._graph.activations if self._is_removal_tensor(t)]
        tensors.sort(key=lambda t: self._graph.producer[t])
        parents = self._regions.parents(tensors)
        found = [replace(self._structure(tensor), parent=parents[tensor]) for tensor in tensors]
        larger = self._larger({s.tensor: s.group for s in found if s.erasable})
        return [replace(s, minimal=s.erasable and s.tensor not in larger) for s in found]

    def _larger(self, groups: dict[str, Group]) -> set[str]:
        """The tensors whose group holds the whole group, and more, of one in their region."""
        holders: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for tensor, group in groups.items():
            for piece in group.slices:
                holders[piece.initializer][tensor] = None
        return {
            outer
            for outer, group in groups.items()
            for inner in {tensor for piece in group.slices for tensor in holders[piece.initializer]}
            if self._regions.encloses(outer, inner) and groups[inner].lies_strictly_in(group)
        }

    def _is_removal_tensor(self, tensor: str) -> bool:
        graph = self._graph
        readers = graph.consumers.get(tensor, [])
        return (
            bool(readers)
            and tensor in graph.producer
            and tensor not in self._joints.inner
            and not graph.is_output(tensor)
            and tensor not in graph.captured
            and all(self._joints.is_operand(node, tensor) for node in readers)
            and all(len(self._joints.tree_of[node].operands) > 1 for node in readers)
        )

    def _structure(self, tensor: str) -> Structure:
        graph = self._graph
        region = self._regions.region(tensor)
        segment = self._walk(tensor).nodes
        plain = Structure(
            tensor=tensor,
            segment=tuple(graph.nodes[i].name for i in reversed(segment)),
            region=tuple(graph.nodes[i].name for i in region),
            params=self._parameters_within(tensor, region),
            macs=sum(rule.macs for i in region if (rule := self._rules[i]) is not None),
        )
        group = self._force(tensor, tensor, {}, 0)
        if isinstance(group, str):
            return replace(plain, reason=group)
        trees = {self._joints.tree_of[node].root: self._joints.tree_of[node] for node in graph.consumers[tensor]}
        for tree in trees.values():
            if not self._joints.stands_without(tree, {tensor}):
                proto = graph.nodes[tree.root]
                known = graph.size(proto.output[0]) is not None
                why = "have another shape" if known else "may have another shape, which is not known"
                return replace(plain, reason=f"without it the other operands of '{proto.name}' {why}")
        slices = self._behind_concats(tensor)
        if isinstance(slices, str):
            return replace(plain, reason=slices)
        refusal = self._not_zero(tensor, region, group)
        if refusal is not None:
            return replace(plain, reason=refusal)
        variables = tuple(sorted(group, key=self._rank.__getitem__))
        return replace(plain, erasable=True, variables=variables, **slices)

    def _not_zero(self, tensor: str, region: list[int], variables: set[str]) -> str | None:
        """Why a tensor is not zero, by abstract interpretation of its region with these variables at zero; or None."""
        zero = set(variables)
        for node in region:
            rule, proto = self._rules[node], self._graph.nodes[node]
            if rule is None:
                continue
            if any(p < len(proto.input) and proto.input[p] in zero for p in rule.poles):
                return f"{proto.op_type} '{proto.name}' is not finite when its variables are zero"
            if self._is_zero(node, rule, zero):
                zero.update(proto.output)
        return None if tensor in zero else "it is not zero when its variables are"

    def _parameters_within(self, tensor: str, region: list[int]) -> int:
        names = {name for index in region for name in self._parameters[index]}
        return sum(
            int(np.prod(self._graph.initializers[name].dims, dtype=np.int64))
            for name in names
            if self._used_within(tensor, name)
        )

    def _used_within(self, tensor: str, variable: str) -> bool:
        inside = all(self._regions.contains(tensor, node) for node in self._graph.consumers[variable])
        return inside and not self._graph.is_output(variable)

    def _walk(self, tensor: str) -> _Segment:
        """Back along the chain that ends in a tensor, to a joint, a multi-consumer operator or a graph input."""
        nodes: list[int] = []
        variables: list[str] = []
        while tensor in self._graph.producer:
            node = self._graph.producer[tensor]
            if len(self._activations[node]) != 1:
                return _Segment(nodes, variables, tensor, node)
            nodes.append(node)
            variables += self._parameters[node]
            tensor = self._activations[node][0]
            readers = self._graph.consumers[tensor] + ([-1] if self._graph.is_output(tensor) else [])
            if len(readers) > 1 or self._has_siblings(tensor):
                break
        return _Segment(nodes, variables, tensor, None)

    def _has_siblings(self, tensor: str) -> bool:
        """Does the operator that makes it give another tensor that is used."""
        graph = self._graph
        if tensor not in graph.producer:
            return False
        others = [name for name in graph.nodes[graph.producer[tensor]].output if name != tensor]
        return any(name in graph.consumers or graph.is_output(name) for name in others)

    def _force(self, tensor: str, removed: str, known: dict[str, set[str] | str], depth: int) -> set[str] | str:
        """The variables nearest to a tensor that force it to zero, all used only within the removed tensor's region;
        or why there are none.
        """
        if depth > _DEEP:
            return "its variables are too far away"
        if tensor not in known:
            known[tensor] = self._force_anew(tensor, removed, known, depth)
        return known[tensor]

    def _force_anew(self, tensor: str, removed: str, known: dict[str, set[str] | str], depth: int) -> set[str] | str:
        segment = self._walk(tensor)
        variables = set(segment.variables)
        if variables:
            outside = sorted(v for v in variables if not self._used_within(removed, v))
            if outside:
                return f"'{outside[0]}' is used outside of it too"
            blocker = self._blocker(segment, variables, start_is_zero=False)
            return variables if blocker is None else blocker
        blocker = self._blocker(segment, variables, start_is_zero=True)
        if blocker is not None:
            return blocker
        if segment.head is not None:
            return self._force_through(segment.head, removed, known, depth)
        if segment.start not in self._graph.producer:
            return f"nothing between the input '{segment.start}' and it can be trained to zero"
        return (
            self._force(segment.start, removed, known, depth + 1) if segment.nodes else "it has no trainable variables"
        )

    def _force_through(self, node: int, removed: str, known: dict[str, set[str] | str], depth: int) -> set[str] | str:
        """Through an operator with several activation inputs: every operand of a joint, else those that yield."""
        rule = self._rules[node]
        name = self._graph.nodes[node].name
        if rule is None:
            return f"unknown operator {self._graph.nodes[node].op_type} '{name}'"
        found: set[str] = set()
        zero: set[str] = set()
        reasons = []
        for operand in self._activations[node]:
            group = self._force(operand, removed, known, depth + 1)
            if isinstance(group, str):
                reasons.append(group)
                hopeful = zero.union(self._activations[node]) - {operand}
                if not self._is_zero(node, rule, hopeful):
                    return group
            else:
                found |= group
                zero.add(operand)
        if not self._is_zero(node, rule, zero):
            return reasons[0] if reasons else f"'{name}' is not zero when its operands are"
        return found

    def _is_zero(self, node: int, rule: Rule, zero: set[str]) -> bool:
        return rule.zero(tuple(not name or name in zero for name in self._graph.nodes[node].input))

    def _blocker(self, segment: _Segment, variables: set[str], *, start_is_zero: bool) -> str | None:
        """Why the end of a segment is not zero with these variables at zero; None where it is."""
        zero = set(variables)
        for node in segment.nodes:
            zero.update(self._views_of(node, variables))
        value = start_is_zero
        blocker: str | None = None if start_is_zero else "it has no trainable variables"
        for node in reversed(segment.nodes):
            rule = self._rules[node]
            inputs = zero | ({self._activations[node][0]} if value else set())
            if rule is None:
                value, blocker = False, f"unknown operator {self._graph.nodes[node].op_type}"
            else:
                value = self._is_zero(node, rule, inputs)
            if not value and rule is not None:
                proto = self._graph.nodes[node]
                blocker = f"{proto.op_type} '{proto.name}' is not zero when its variables and its input are"
        return None if value else blocker

    def _views_of(self, node: int, variables: set[str]) -> list[str]:
        """The inputs of a node that are computed from these variables by operators that keep zero."""
        found = []
        for name in self._graph.nodes[node].input:
            tensor = name
            while tensor in self._graph.producer and tensor not in self._graph.activations:
                above = self._graph.producer[tensor]
                rule = self._rules[above]
                tensor = self._graph.nodes[above].input[0] if self._graph.nodes[above].input else ""
                if rule is None or not rule.zero((True,) + (False,) * (len(self._graph.nodes[above].input) - 1)):
                    tensor = ""
            if tensor in variables:
                found.append(name)
        return found

    def _behind_concats(self, tensor: str) -> dict[str, Any] | str:
        """What its channels own behind the Concats that read it (fields of Structure); or why they cannot leave."""
        labels: list[np.ndarray] = []
        for node, axis in self._joints.concats_of(tensor):
            found = self._coupling.operand_labels(node, axis, tensor)
            if found is None:
                return f"the channels that it has in '{self._graph.nodes[node].name}' are not known"
            labels.append(found)
        if not labels:
            return {}
        closure = self._coupling.closure(np.concatenate(labels))
        for freeze in self._coupling.freezes_among(closure):
            if freeze.node < 0 or not self._regions.contains(tensor, freeze.node):
                return f"its channels behind the Concat cannot leave: {freeze.reason}"
        return self._sort_slices(tensor, closure)

    def _sort_slices(self, tensor: str, closure: Ids) -> dict[str, Any] | str:
        zeroed: list[Slice] = []
        cut: list[Slice] = []
        for owner, axis, kind, indices in self._coupling.axes_of(closure):
            if kind is Kind.SOURCE:
                inside = (
                    owner == tensor or self._regions.encloses(tensor, owner) if owner in self._graph.producer else False
                )
            else:
                inside = self._used_within(tensor, owner)
            if inside:
                continue
            if kind & (Kind.PRODUCED | Kind.SOURCE):
                return f"its channels are tied to those of '{owner}', which stays"
            slices = zeroed if Kind.AFFINE in kind else cut
            slices.append(Slice(initializer=owner, axis=axis, indices=indices))
        return {"zeroed": tuple(zeroed), "cut": tuple(cut)}


@dataclass(frozen=True, slots=True)
class _Segment:
    """Operators from the end back to the start, their variables, the tensor it starts from, and the joint or product
    that makes this tensor (None where several read it or nothing makes it).
    """

    nodes: list[int]
    variables: list[str]
    start: str
    head: int | None
