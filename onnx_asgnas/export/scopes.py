"""Where in the network's structure each node stands, as the parts of a path like layer1.0.conv1.

Exporters write it into the names of nodes (/layer1/layer1.0/conv1/Conv). Where they do not, the names of weights tell
it (layer1.0.conv1.weight), and a node without weights stands with what it follows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import takewhile

from onnx_asgnas.graph import TraceGraph

Scope = tuple[str, ...]

_NEAR = 8
"""Nodes behind a Concat in which the next weight is looked for."""


def scopes_of(graph: TraceGraph) -> list[Scope]:
    """The path of every node, () where nothing is known of it."""
    named = [_of_name(node.name) for node in graph.nodes]
    if sum(map(bool, named)) > len(named) // 2:
        return named
    return _by_weights(graph)


def _of_name(name: str) -> Scope:
    """The path in a node's name; a part that repeats the one before (layer1/layer1.0) continues it."""
    if "/" not in name:
        return ()
    path: list[str] = []
    before = ""
    for part in name.strip("/").split("/")[:-1]:
        rest = part.removeprefix(before + ".") if before else part
        path += rest.split(".")
        before = part
    return tuple(part for part in path if part)


def _by_weights(graph: TraceGraph) -> list[Scope]:
    """The owners of the weights, and for a node without any the path around what it reads last."""
    owners: list[Scope | None] = [_owner(graph, index) for index in range(len(graph.nodes))]
    scopes: list[Scope] = []
    for index, owner in enumerate(owners):
        if owner is None:
            behind = [graph.producer[name] for name in graph.reads[index] if name in graph.producer]
            last = max(behind, default=None)
            owner = () if last is None else scopes[last] if owners[last] is None else scopes[last][:-1]
            if graph.nodes[index].op_type == "Concat":
                owner = _shared(owner, _owner_ahead(graph, index, owners))
                if len(behind) > 2:  # what joins several layers of a block is of that block
                    owner = max(owner, _shared(scopes[behind[-2]], scopes[behind[-1]]), key=len)
        scopes.append(owner)
    return _with_even_tails(graph, scopes, owners)


def _owner_ahead(graph: TraceGraph, index: int, owners: list[Scope | None]) -> Scope:
    """The owner of the next weight that what a node gives meets; () where none is near."""
    for _ in range(_NEAR):
        readers = graph.consumers.get(graph.nodes[index].output[0], [])
        if not readers:
            return ()
        index = readers[0]
        owner = owners[index]
        if owner is not None:
            return owner
    return ()


def _shared(one: Scope, other: Scope) -> Scope:
    both = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(part for part, _ in both)


def _owner(graph: TraceGraph, index: int) -> Scope | None:
    for name in graph.reads[index]:
        if name in graph.initializers and name.count(".") > 0:
            parts = tuple(name.split("."))
            if all(part.isidentifier() or part.isdigit() for part in parts):
                return parts[:-1]
    return None


def _with_even_tails(graph: TraceGraph, scopes: list[Scope], owners: list[Scope | None]) -> list[Scope]:
    """What follows the last weight of a block belongs to it as far as it does in its siblings.

    The last block of a network would else take the pooling and the head's arithmetic along.
    """
    tails: defaultdict[Scope, list[int]] = defaultdict(list)
    for index, scope in enumerate(scopes):
        block = _block_of(scope)
        if not block:
            continue
        if owners[index] is not None:
            tails[block] = []
        else:
            tails[block].append(index)
    families: defaultdict[Scope, list[Scope]] = defaultdict(list)
    for block in tails:
        families[_family(block)].append(block)
    for blocks in families.values():
        if len(blocks) < 2:
            continue
        usual = Counter(len(tails[block]) for block in blocks).most_common(1)[0][0]
        for block in blocks:
            for index in tails[block][usual:]:
                scopes[index] = ()
    return scopes


def _block_of(scope: Scope) -> Scope:
    """The path up to its last number."""
    for end in range(len(scope), 0, -1):
        if scope[end - 1].isdigit():
            return scope[:end]
    return ()


def _family(block: Scope) -> Scope:
    return tuple(part.rstrip("0123456789") for part in block)
