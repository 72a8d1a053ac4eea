from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_asgnas.report.fold_tree import MOST, Box, Flow, fold, quiet_cuts, sequences
from onnx_asgnas.report.space_data import space_data
from onnx_asgnas.space import analyze
from tests.random_graphs import networks


def flow(sources: Sequence[Sequence[int]], **facts: Any) -> Flow:
    count = len(sources)
    values: dict[str, Any] = {
        "constant": [False] * count,
        "structure": [-1] * count,
        "family": [-1] * count,
        "alone": [False] * count,
    }
    return Flow(sources=sources, **(values | facts))


def chain(count: int) -> list[list[int]]:
    return [[at - 1] if at else [] for at in range(count)]


def operators_in(boxes: Sequence[Box], count: int) -> list[int]:
    """The operators under the last box, each as often as the tree holds it."""
    found, stack = [], [count + len(boxes) - 1]
    while stack:
        number = stack.pop()
        if number < count:
            found.append(number)
        else:
            stack += boxes[number - count].children
    return sorted(found)


def has_cycle(boxes: Sequence[Box], sources: Sequence[Sequence[int]], is_open: Any) -> bool:
    """Is there a cycle when the boxes are folded for which `is_open` is false."""
    count = len(sources)
    shown = list(range(count + len(boxes)))
    opened = {count + len(boxes) - 1}
    for number in reversed(range(count, count + len(boxes))):
        for child in boxes[number - count].children:
            if number not in opened:
                shown[child] = shown[number]
            elif child >= count and is_open(child):
                opened.add(child)
    edges = {(shown[s], shown[at]) for at, some in enumerate(sources) for s in some if shown[s] != shown[at]}
    left = {number for edge in edges for number in edge}
    while left:
        free = left - {b for a, b in edges if a in left}
        if not free:
            return True
        left -= free
    return False


def test_operators_that_nothing_separates_are_one_sequence() -> None:
    assert sequences(flow(chain(5))) == {0: [0, 1, 2, 3, 4]}


def test_a_family_starts_a_sequence_and_what_has_none_goes_with_its_input() -> None:
    conv_relu_conv_relu = flow(chain(4), family=[0, -1, 1, -1])
    assert sequences(conv_relu_conv_relu) == {0: [0, 1], 2: [2, 3]}


def test_a_branch_that_closes_again_stays_in_the_sequence() -> None:
    swish = flow([[], [0], [0, 1], [2]], family=[0, -1, -1, 1])
    assert sequences(swish) == {0: [0, 1, 2], 3: [3]}


def test_what_joins_two_sequences_starts_one() -> None:
    residual = flow([[], [0], [1], [0, 2], [3]], family=[0, 1, 2, -1, -1])
    assert sequences(residual) == {0: [0], 1: [1], 2: [2], 3: [3, 4]}


def test_what_reads_no_input_goes_with_its_only_reader() -> None:
    dequantized = flow([[], [], [0, 1], [], [3, 2]], constant=[False, True, False, True, False], family=[-1] * 5)
    assert sequences(dequantized) == {0: [0, 1, 2, 3, 4]}


def test_protected_and_unknown_operators_are_never_hidden() -> None:
    assert sequences(flow(chain(3), alone=[False, True, False])) == {0: [0], 1: [1], 2: [2]}


def test_a_structure_of_one_sequence_shows_its_operators() -> None:
    branch = flow([[], [0], [1], [0, 2]], structure=[-1, 0, 0, -1])
    boxes = fold(branch, parents=[-1], exits=[2])
    assert [(b.kind, b.structure, b.children) for b in boxes] == [("structure", 0, (1, 2)), ("network", -1, (0, 4, 3))]


def test_a_structure_without_operators_gets_no_box() -> None:
    boxes = fold(flow([[], [0], [1]]), parents=[-1, -1], exits=[0, 0])
    assert [b.kind for b in boxes] == ["network"]


@pytest.mark.parametrize("count", [MOST, MOST + 1, 5000])
def test_a_long_chain_folds_into_parts_that_can_be_drawn(count: int) -> None:
    sources = chain(count)
    boxes = fold(flow(sources), [], [])
    assert operators_in(boxes, count) == list(range(count))
    assert max(len(b.children) for b in boxes) <= MOST
    assert (len(boxes) > 1) == (count > MOST)


def test_parallel_structures_fold_where_it_is_crowded() -> None:
    """Thirty stages of five structures between two sums: 181 boxes without the fold."""
    sources, structure, exits = [[]], [-1], []
    for _ in range(30):
        before = len(sources) - 1
        for at in range(before + 1, before + 6):
            sources.append([before])
            structure.append(len(exits))
            exits.append(at)
        sources.append(list(range(before + 1, before + 6)))
        structure.append(-1)
    boxes = fold(flow(sources, structure=structure), [-1] * 150, exits)
    assert [len(b.children) for b in boxes if b.kind == "parallel"] == [5] * 30
    assert not has_cycle(boxes, sources, lambda number: False)


@pytest.mark.parametrize("count", [60, 120])
def test_a_dense_network_folds_into_parts_of_few_lines(count: int) -> None:
    sources = [list(range(at)) for at in range(count)]
    boxes = fold(flow(sources, family=list(range(count))), [], [])
    assert count // 16 <= len(boxes[-1].children) <= count // 6
    assert all(len(b.children) <= 16 for b in boxes if b.kind == "part")
    assert operators_in(boxes, count) == list(range(count))


def test_cuts_are_where_few_edges_cross() -> None:
    crossings = [5] * 100
    crossings[29] = crossings[69] = 1
    assert quiet_cuts(crossings, 16, 48) == [30, 70, 100]


@given(networks(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_folding_of_any_network_is_a_drawing_without_cycles(model: Any, random: Random) -> None:
    data = space_data(analyze(model), "random")
    count = len(data["operators"]["name"])
    boxes = [Box(kind=kind, structure=s, children=tuple(children)) for kind, s, children in data["boxes"]]
    sources: list[list[int]] = [[] for _ in range(count)]
    for at in range(0, len(data["edges"]), 3):
        sources[data["edges"][at + 1]].append(data["edges"][at])
    assert operators_in(boxes, count) == list(range(count))
    assert max(len(b.children) for b in boxes) <= MOST
    chosen = {number for number in range(count, count + len(boxes)) if random.random() < 0.5}
    for is_open in (lambda n: False, lambda n: n in chosen, lambda n: True):
        assert not has_cycle(boxes, sources, is_open)
