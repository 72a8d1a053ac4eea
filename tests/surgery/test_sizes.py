"""Constants that hold sizes: each kind of number, for every way to write it, and what others read stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.slots import Counts, SizeSlot
from onnx_asgnas.surgery.sizes import SizeSurgery, leaving
from tests.operators.cutting import cut_half, model_of, normal, sizes_of

LAST = 2**31 - 1


def surgery(model: onnx.ModelProto, gone: list[int]) -> SizeSurgery:
    """The surgery on a model from which these of eight labels leave."""
    graph = TraceGraph.of(model)
    work = gs.import_onnx(graph.outline())
    mask = np.zeros(8, bool)
    mask[gone] = True
    return SizeSurgery(graph, {node.name: node for node in work.nodes}, mask)


def labels(*ids: int) -> Any:
    return np.array(ids, np.int64).reshape(-1, 1)


def sliced(start: int, end: int) -> onnx.ModelProto:
    arrays = {"start": np.array([start], np.int64), "end": np.array([end], np.int64), "axis": np.array([1], np.int64)}
    return model_of("(float[N, 8] x) => (float[N, d] y) { y = Slice (x, start, end, axis) }", arrays)


@pytest.mark.parametrize(
    ("counts", "counted", "before", "gone", "after"),
    [
        (Counts.LENGTH, [0, 1, 2, 3], 4, [1, 3, 6], 2),
        (Counts.LENGTH, [0, 1, 2, 3], 4, [6], 4),
        (Counts.FROM_END, [5, 6, 7], -3, [0, 5, 7], -1),
        (Counts.FROM_END, [7], -1, [7], LAST),
        (Counts.FROM_END, [6, 7], -2, [6, 7], LAST),
        (Counts.BROADCAST, list(range(8)), 8, [2], 1),
    ],
)
def test_a_number_follows_what_it_counts(
    counts: Counts, counted: list[int], before: int, gone: list[int], after: int
) -> None:
    """Minus nothing is no place from the end any more: then it is the end."""
    work = surgery(sliced(0, before), gone)
    values = work.perform([SizeSlot(0, labels(*counted), input=2, position=0, counts=counts)])
    if before == after:
        assert not values
    else:
        assert [v.tolist() for v in values.values()] == [[after]]
        assert work.nodes["Slice_0"].inputs[2].values.tolist() == [after]


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=10), st.sets(st.integers(0, 7), max_size=7))
def test_indices_name_the_same_channels_afterwards(indices: list[int], gone: set[int]) -> None:
    model = model_of(
        "(float[N, 8] x) => (float[N, d] y) { y = Gather <axis = 1> (x, i) }", {"i": np.array(indices, np.int64)}
    )
    work = surgery(model, sorted(gone))
    work.perform([SizeSlot(0, labels(*range(8)), input=1, position=None, counts=Counts.INDICES)])
    found = work.nodes["Gather_0"].inputs[1].values.tolist()
    data = np.arange(8)
    expected = [v for v in data[indices].tolist() if v not in gone]
    assert [np.delete(data, sorted(gone))[i] for i in found] == expected


def test_an_index_of_an_axis_leaves_when_all_its_labels_do() -> None:
    mask = np.array([True, True, False, False])
    assert leaving(np.array([[0, 1], [0, 2], [-1, 0], [2, 3]]), mask).tolist() == [True, False, False, False]


def test_attributes_and_entries_of_them() -> None:
    model = model_of(
        "(float[N, 8] x) => (float[N, d] y) { y = Slice <axes = [1, 0], starts = [2, 0], ends = [6, 9]> (x) }", {}, 9
    )
    work = surgery(model, [0, 3, 5])
    counted = (("starts", labels(0, 1)), ("ends", labels(*range(6))))
    work.perform([SizeSlot(0, ids, attribute=name, position=0) for name, ids in counted])
    assert (work.nodes["Slice_0"].attrs["starts"], work.nodes["Slice_0"].attrs["ends"]) == ([1, 0], [3, 9])
    model = model_of(
        "(float[N, 8, 4, 4] x) => (float[N, 8, 4, 4] y) { y = Conv <group = 8> (x, w) }", {"w": normal(8, 1, 1, 1)}
    )
    work = surgery(model, [0, 3, 5])
    assert not work.perform([SizeSlot(0, labels(*range(8)), attribute="group", position=None)])
    assert work.nodes["Conv_0"].attrs["group"] == 5


@pytest.mark.parametrize(("opset", "extra"), [(11, ""), (13, ""), (18, ", num_outputs = 3")])
def test_equal_parts_become_explicit(opset: int, extra: str) -> None:
    """Three parts of nine, of which the last may be shorter (from operator set 18 on)."""
    length = 8 if extra else 6
    model = model_of(
        f"""(float[N, {length}] x) => (float[N, a] p, float[N, b] q, float[N, c] r) {{
            p, q, r = Split <axis = 1{extra}> (x) }}""",
        {},
        opset,
    )
    work = surgery(model, [0, 1, 2, 5])
    values = work.perform(
        [SizeSlot(0, labels(*range(length)), attribute="split", position=None, counts=Counts.EQUAL_PARTS)]
    )
    node = work.nodes["Split_0"]
    expected = [0, 2, 2] if extra else [0, 1, 1]
    assert node.attrs.get("num_outputs") is None
    if opset == 11:
        assert node.attrs["split"] == expected
        assert not values
    else:
        assert node.inputs[1].values.tolist() == expected
        assert list(values) == ["Split_0.split"]


def test_two_entries_of_one_constant_change_together_and_other_readers_keep_it() -> None:
    model = model_of(
        "(float[N, 8] x) => (float[N, 2, 4] y, float[N, 2, 4] z) { y = Reshape (x, to)  z = Reshape (x, to) }",
        {"to": np.array([0, 2, 4], np.int64)},
    )
    work = surgery(model, [0, 1, 2, 3])
    slots = [SizeSlot(0, labels(0, 4), input=1, position=1), SizeSlot(0, labels(0, 1, 4, 5), input=1, position=2)]
    values = work.perform(slots)
    assert {name: v.tolist() for name, v in values.items()} == {"Reshape_0.input1": [0, 1, 2]}
    assert work.nodes["Reshape_1"].inputs[1].name == "to"


def test_a_name_that_is_taken_gets_another() -> None:
    arrays = {
        "Slice_0.input2": np.array([6], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
    }
    text = '(float[N, 8] x) => (float[N, d] y) { y = Slice (x, zero, "Slice_0.input2", one) }'
    work = surgery(model_of(text, arrays), [0, 3])
    assert work.perform([SizeSlot(0, labels(*range(6)), input=2)])["Slice_0.input2"].tolist() == [4]
    text = """(float[N, 8] x) => (float[N, d] y, float[N, e] z) {
        y = Slice (x, zero, six, one)  z = Slice (x, zero, "Slice_0.input2", one) }"""
    work = surgery(model_of(text, arrays | {"six": np.array([6], np.int64)}), [0, 3])
    assert list(work.perform([SizeSlot(0, labels(*range(6)), input=2)])) == ["Slice_0.input2_"]


def test_a_node_that_is_gone_needs_no_sizes() -> None:
    work = surgery(sliced(0, 4), [0])
    work.nodes.clear()
    assert not work.perform([SizeSlot(0, labels(0, 1), input=2)])


def test_a_shape_put_together_that_several_read_is_copied() -> None:
    """One Concat of an open length and a number of channels, for two Expands of which one gets shorter."""
    arrays = {"w": normal(5, 12), "last": normal(12, 3, seed=2), "twelve": np.array([12], np.int64)}
    text = """(float[B, 5] x, float[1, 1] p) => (float[B, 3] y, float[B, d] u) {
        n = Shape <end = 1> (x)  t = Concat <axis = 0> (n, twelve)  h = MatMul (x, w)
        e = Expand (p, t)  f = Mul (e, p)  r = Mul (h, f)  y = MatMul (r, last)  u = Expand (p, t) }"""
    result = cut_half(model_of(text, arrays))
    assert sizes_of(result.compact) == {"w": [5, 6], "last": [6, 3], "twelve": [1], "Expand_3.input1.input1": [1]}
    pieces = [list(node.input) for node in result.compact.graph.node if node.op_type == "Concat"]
    assert sorted(pieces) == [["n", "Expand_3.input1.input1"], ["n", "twelve"]]
