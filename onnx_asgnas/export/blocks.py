"""The network as a tree of blocks, after the paths of its steps. A block is left out where it could not be one call:

where a path leads out of it and back into it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from onnx_asgnas.export.code import Step, refs
from onnx_asgnas.export.scopes import Scope


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Steps and smaller blocks in an order in which they can run; `inputs` and `outputs` are tensors."""

    path: Scope
    items: tuple[Step | Block, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    """Steps that stand under one path, or a single one that stands by itself."""

    path: Scope
    steps: list[Step]
    single: bool = False


def arranged(steps: list[Step], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Block:
    """The tree of a whole network."""
    order = {id(step): at for at, step in enumerate(steps)}
    return _arranged(steps, (), inputs, outputs, order)


def _arranged(
    steps: list[Step], path: Scope, inputs: tuple[str, ...], outputs: tuple[str, ...], order: dict[int, int]
) -> Block:
    groups = _split(steps, path)
    while True:
        readers = _edges(groups)
        tangled = _tangled(readers)
        if not tangled:
            break
        groups = [
            part for at, group in enumerate(groups) for part in (_taken_apart(group) if at in tangled else [group])
        ]
    sequence = [groups[at] for at in _sorted(groups, readers, order)]
    if len(sequence) == 1 and not sequence[0].single:
        return _arranged(sequence[0].steps, sequence[0].path, inputs, outputs, order)
    read_outside = _read_outside(sequence, outputs)
    items = [
        group.steps[0]
        if group.single
        else _arranged(group.steps, group.path, _inputs(group.steps), _given(group.steps, wanted), order)
        for group, wanted in zip(sequence, read_outside, strict=True)
    ]
    return Block(path, tuple(items), inputs, outputs)


def _split(steps: Iterable[Step], path: Scope) -> list[_Group]:
    """Steps by the next part of their path; what stands alone under one is no block."""
    groups: dict[str, _Group] = {}
    found = []
    for step in steps:
        if len(step.scope) <= len(path):
            found.append(_Group(step.scope, [step], single=True))
            continue
        key = step.scope[len(path)]
        if key not in groups:
            groups[key] = _Group(step.scope[: len(path) + 1], [])
            found.append(groups[key])
        groups[key].steps.append(step)
    for group in groups.values():
        group.single = len(group.steps) == 1
    return found


def _taken_apart(group: _Group) -> list[_Group]:
    return [group] if group.single else _split(group.steps, group.path)


def _inputs(steps: list[Step]) -> tuple[str, ...]:
    made = {name for step in steps for name in step.outputs}
    read = dict.fromkeys(name for step in steps for name in refs(step.code))
    return tuple(name for name in read if name not in made)


def _given(steps: list[Step], wanted: set[str]) -> tuple[str, ...]:
    return tuple(name for step in steps for name in step.outputs if name in wanted)


def _read_outside(groups: list[_Group], outputs: Iterable[str]) -> list[set[str]]:
    """For each group the tensors that others read or the whole gives."""
    readers: dict[str, set[int]] = {}
    for at, group in enumerate(groups):
        for step in group.steps:
            for name in refs(step.code):
                readers.setdefault(name, set()).add(at)
    wanted = set(outputs)
    return [
        {name for step in group.steps for name in step.outputs if name in wanted or readers.get(name, set()) - {at}}
        for at, group in enumerate(groups)
    ]


def _edges(groups: list[_Group]) -> list[set[int]]:
    """For each group those that read from it."""
    maker = {name: at for at, group in enumerate(groups) for step in group.steps for name in step.outputs}
    readers: list[set[int]] = [set() for _ in groups]
    for at, group in enumerate(groups):
        for step in group.steps:
            for name in refs(step.code):
                if name in maker and maker[name] != at:
                    readers[maker[name]].add(at)
    return readers


def _tangled(readers: list[set[int]]) -> set[int]:
    """The groups that lie on a circle: what is left when all that can come first and all that can come last is gone."""
    writers: list[set[int]] = [set() for _ in readers]
    for at, after in enumerate(readers):
        for each in after:
            writers[each].add(at)
    left = set(range(len(readers)))
    for edges, back in ((readers, writers), (writers, readers)):
        counts = {at: len(back[at] & left) for at in left}
        ready = [at for at in left if not counts[at]]
        while ready:
            at = ready.pop()
            left.discard(at)
            for each in edges[at] & left:
                counts[each] -= 1
                if not counts[each]:
                    ready.append(each)
    return left


def _sorted(groups: list[_Group], readers: list[set[int]], order: dict[int, int]) -> list[int]:
    """An order in which the groups can run, as near to that of the steps as there is."""
    counts = [0] * len(groups)
    for after in readers:
        for each in after:
            counts[each] += 1
    place = [min(order[id(step)] for step in group.steps) for group in groups]
    ready = [(place[at], at) for at, count in enumerate(counts) if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        _, at = heapq.heappop(ready)
        found.append(at)
        for each in readers[at]:
            counts[each] -= 1
            if not counts[each]:
                heapq.heappush(ready, (place[each], each))
    return found
