"""What the page of a search space knows, as plain data: the network, its boxes, structures, families and reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from onnx_asgnas.errors import SpaceError
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Rule, parameters_of, rules_of
from onnx_asgnas.report.fold_tree import Box, Flow, fold
from onnx_asgnas.space import SearchSpace
from onnx_asgnas.space.cost import elements
from onnx_asgnas.space.families import ChannelFamily

INPUT, OUTPUT = "graph input", "graph output"
"""What stands for an operator type where the network begins and ends."""


def space_data(space: SearchSpace, name: str) -> dict[str, Any]:
    """All that the page shows of a search space, as plain data; raises SpaceError for a space without its model.

    Operators are numbered in topological order between the graph's inputs and its outputs, which count as operators
    too; structures, families and tensors by their place in their lists.
    """
    if space.graph is None:
        raise SpaceError("this search space has no model", fix="Bind it: space.bind(model).")
    network = _Network(space.graph, rules_of(space.graph))
    families = space.channel_families()
    structure, parents, exits = _places(space, network)
    flow = Flow(
        sources=network.sources,
        constant=network.constant,
        structure=structure,
        family=_makers(families, network),
        alone=_alone(space, network),
    )
    return {
        "format": 1,
        "model": name,
        "mode": space.mode,
        "params": space.params,
        "macs": space.macs,
        "max_removable": {
            "structures": space.max_removable.structures,
            "params": space.max_removable.params,
            "macs": space.max_removable.macs,
        },
        "channel_groups": {"total": space.channel_groups.total, "free": space.channel_groups.free},
        "operators": network.operators() | {"structure": structure},
        "tensors": network.tensors(),
        "edges": network.edges,
        "boxes": [_box(box) for box in fold(flow, parents, exits)],
        "structures": _structures(space, network, parents),
        "families": [_family(family, network) for family in families],
        "frozen": [
            {"operator": network.number.get(f.node, -1), "type": f.op_type, "reason": f.reason, "channels": f.channels}
            for f in space.frozen
        ],
        "protected": [network.number[n] for n in space.protected if n in network.number],
        "unknown": list(space.unknown),
    }


class _Network:
    """The graph with its inputs and outputs as operators, and every operator and tensor by number."""

    def __init__(self, graph: TraceGraph, rules: Sequence[Rule | None]) -> None:
        self._graph, self._rules = graph, rules
        first = len(graph.inputs)
        self.count = first + len(graph.nodes) + len(graph.outputs)
        self.number = {node.name: first + at for at, node in enumerate(graph.nodes)}
        self._producer = {name: at for at, name in enumerate(graph.inputs)}
        self._producer |= {name: first + index for name, index in graph.producer.items()}
        self._tensor = {name: at for at, name in enumerate(self._producer)}
        reads: list[list[str]] = [[] for _ in graph.inputs] + graph.reads + [[name] for name in graph.outputs]
        read = [[name for name in dict.fromkeys(names) if name in self._producer] for names in reads]
        self.sources = [[self._producer[name] for name in names] for names in read]
        self.edges = [
            number
            for reader, names in enumerate(read)
            for name in names
            for number in (self._producer[name], reader, self._tensor[name])
        ]
        self.constant = [
            *(False for _ in graph.inputs),
            *(graph.activations.isdisjoint(names) for names in graph.reads),
            *(False for _ in graph.outputs),
        ]

    def maker(self, tensor: str) -> int:
        """The operator that makes a tensor."""
        return self._producer[tensor]

    def numbers(self, nodes: Iterable[str]) -> list[int]:
        """The operators with these names, in topological order."""
        return sorted(self.number[name] for name in nodes if name in self.number)

    def operators(self) -> dict[str, list[Any]]:
        """Names, types, domains and costs of all operators; an initializer counts where it is read first."""
        graph = self._graph
        seen: set[str] = set()
        params: list[int] = []
        for index, rule in enumerate(self._rules):
            own = [name for name in parameters_of(graph, index, rule) if name not in seen]
            seen.update(own)
            params.append(sum(elements(graph, name) for name in own))
        before, behind = [0] * len(graph.inputs), [0] * len(graph.outputs)
        types = [f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in graph.nodes]
        return {
            "name": [*graph.inputs, *(node.name for node in graph.nodes), *graph.outputs],
            "type": [*(INPUT for _ in before), *types, *(OUTPUT for _ in behind)],
            "params": before + params + behind,
            "macs": before + [rule.macs if rule is not None else 0 for rule in self._rules] + behind,
        }

    def tensors(self) -> dict[str, list[Any]]:
        """Names and shapes of all tensors that an operator or an input makes, and who makes each."""
        names = list(self._tensor)
        return {
            "name": names,
            "shape": [_shape(self._graph, name) for name in names],
            "maker": [self._producer[name] for name in names],
        }


def _places(space: SearchSpace, network: _Network) -> tuple[list[int], list[int], list[int]]:
    """The innermost structure of every operator; the parent and the last operator of every structure."""
    at = {s.tensor: index for index, s in enumerate(space.structures)}
    regions = [[network.number[name] for name in s.region] for s in space.structures]
    exits = [max(region, default=network.maker(s.tensor)) for s, region in zip(space.structures, regions, strict=True)]
    structure = [-1] * network.count
    for index in sorted(range(len(regions)), key=lambda s: -exits[s]):
        for operator in regions[index]:
            structure[operator] = index
    parents = [at[s.parent] if s.parent is not None else -1 for s in space.structures]
    return structure, parents, exits


def _makers(families: Sequence[ChannelFamily], network: _Network) -> list[int]:
    """The family whose channels each operator makes, -1 for none."""
    found = [-1] * network.count
    for index, family in enumerate(families):
        for member in family.members:
            if member.kind != "cut":
                for operator in network.numbers(member.nodes):
                    found[operator] = index
    return found


def _alone(space: SearchSpace, network: _Network) -> list[bool]:
    """What a sequence must not hide: where the network begins and ends, what is protected, what is unknown."""
    operators = network.operators()
    ends = {INPUT, OUTPUT, *space.unknown}
    protected = set(network.numbers(space.protected))
    return [t in ends or t.rpartition(".")[2] in ends or at in protected for at, t in enumerate(operators["type"])]


def _structures(space: SearchSpace, network: _Network, parents: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "tensor": s.tensor,
            "maker": network.maker(s.tensor),
            "parent": parent,
            "minimal": s.minimal,
            "erasable": s.erasable,
            "reason": s.reason,
            "segment": network.numbers(s.segment),
            "operators": len(s.region),
            "variables": list(s.variables),
            "zeroed": [[piece.initializer, piece.axis, len(piece.indices)] for piece in s.zeroed],
            "cut": [[piece.initializer, piece.axis, len(piece.indices)] for piece in s.cut],
            "params": s.params,
            "macs": s.macs,
        }
        for s, parent in zip(space.structures, parents, strict=True)
    ]


def _family(family: ChannelFamily, network: _Network) -> dict[str, Any]:
    return {
        "name": family.name,
        "groups": family.groups,
        "free": family.free,
        "channels": family.channels,
        "members": [[m.initializer, m.axis, m.kind, network.numbers(m.nodes)] for m in family.members],
        "reasons": list(family.reasons),
        "params": family.params,
        "macs": family.macs,
    }


def _box(box: Box) -> list[Any]:
    return [box.kind, box.structure, list(box.children)]


def _shape(graph: TraceGraph, name: str) -> str:
    shape = graph.shape(name)
    return "unknown" if shape is None else " × ".join("?" if n is None else str(n) for n in shape) or "scalar"
