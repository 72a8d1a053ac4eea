"""Groups from ties, and rectangles of labels of which whole rows or whole columns leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.space.grouping import Grouping, settle
from tests.operators.cutting import cut_half, model_of, normal, sizes_of
from tests.operators.labelling import flow_of, settled

ROWS, COLUMNS = [[0, 0, 0], [1, 1, 1]], [[0, 1, 2], [0, 1, 2]]


def rectangle(rows: int = 2, columns: int = 3) -> tuple[LabelFlow, Ids]:
    """A tensor with a label at each place of a table."""
    flow = flow_of("(float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }")
    ids = flow.book.axis("w", 0, rows * columns, Kind.PRODUCED).reshape(rows, columns)
    flow.book.tensors["x"] = Labelled.of(ids, True)
    return flow, ids


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.booleans())
def test_ties_make_components(pairs: list[tuple[int, int]], axes: bool) -> None:
    """By single labels, and by axes that are tied as wholes, against a plain closure."""
    book = flow_of("(float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }").book
    first, second = book.axis("a", 0, 5, Kind.PRODUCED), book.axis("b", 0, 5, Kind.PRODUCED)
    if pairs:
        book.ties.append((np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])))
    if axes:
        LabelFlow(book, 0).tie(first, second, "")
        assert len(book.axis_ties) == 1
        pairs = [*pairs, *zip(first.tolist(), second.tolist(), strict=True)]
    reach = np.eye(10, dtype=bool)
    for a, b in pairs:
        reach[a, b] = reach[b, a] = True
    for _ in range(4):
        reach = reach @ reach
    grouping = Grouping(book)
    assert np.array_equal(grouping.group[:, None] == grouping.group[None], reach)
    assert grouping.count == len(np.unique(grouping.group))


def test_an_axis_of_one_group_stays_and_so_does_one_without_a_maker() -> None:
    flow, ids = rectangle()
    flow.book.ties.append((ids[0, :1].repeat(5), ids.reshape(-1)[1:]))
    assert settle(flow.book).frozen.all()
    book = flow_of("(float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }").book
    book.axis("x", 1, 4, Kind.SOURCE)
    assert Grouping(book).frozen.all()


def test_the_axis_with_more_free_groups_leaves_by_whole_slabs() -> None:
    flow, ids = rectangle(2, 3)
    assert settled(flow, ids).tolist() == COLUMNS
    flow, ids = rectangle(4, 3)
    assert settled(flow, ids).tolist() == [[i] * 3 for i in range(4)]


def test_ties_of_what_follows_settle_it() -> None:
    flow, ids = rectangle(2, 3)
    flow.tie(ids[:, :1], ids, "heads")
    assert settled(flow, ids).tolist() == ROWS


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        ([(0, 0)], [[-1, 0, 1], [-1, 0, 1]]),  # a column stays
        ([(0, 0), (0, 1), (0, 2)], [[-1] * 3, [0] * 3]),  # a row that stays leaves the other one by itself
        ([(0, 0), (1, 1)], [[-1, -1, 0], [-1, -1, 0]]),
        ([(0, 0), (1, 1), (0, 2)], [[-1] * 3] * 2),
    ],
)
def test_rows_or_columns_that_stay_in_part_stay_as_a_whole(
    frozen: list[tuple[int, int]], expected: list[list[int]]
) -> None:
    flow, ids = rectangle(2, 3)
    flow.freeze(np.array([ids[place] for place in frozen]), "these stay")
    assert settled(flow, ids).tolist() == expected


def test_places_without_a_label_keep_their_row() -> None:
    """A table of which the last row holds a fixed value: rows leave, but not that one."""
    flow, ids = rectangle(3, 2)
    ids = np.where(np.arange(3)[:, None] == 2, -1, ids)
    flow.book.tensors["x"] = Labelled.of(ids, True)
    assert settled(flow, ids).tolist() == [[0, 0], [1, 1], [-1, -1]]
    ids = ids.copy()
    ids[1, 1] = -1
    flow.book.tensors["x"] = Labelled.of(ids, True)
    assert settled(flow, ids)[0].tolist() == [0, 0]
    assert settled(flow, ids)[1].tolist() == [-1, -1]


def test_tables_that_ask_for_opposite_ties_stay_or_agree() -> None:
    """The same labels in two arrangements: whatever is chosen, of both arrays whole slabs leave."""
    flow, ids = rectangle(4, 3)
    flow.book.tensors["y"] = Labelled.of(ids.reshape(3, 4), True)
    grouping = settle(flow.book)
    assert grouping.frozen.all()
    flow, ids = rectangle(4, 4)
    flow.book.tensors["y"] = Labelled.of(ids.T.copy(), True)
    assert len(np.unique(settled(flow, ids))) == 4


def test_each_tensor_keeps_one_of_its_labels() -> None:
    """A tensor that holds a part of the labels of an axis has a segment of its own, one with places to spare none."""
    flow, ids = rectangle(2, 3)
    part, padded = ids[:1, :2], np.array([[0, -1]])
    flow.book.tensors |= {"p": Labelled.of(part, True), "q": Labelled.of(part, False), "r": Labelled.of(padded, True)}
    labels, starts = Grouping(flow.book).segments
    assert starts.tolist() == [0, 6, 12]
    assert labels.tolist() == [*range(6), *range(6), 0, 1]


def test_a_shuffle_of_as_many_groups_as_they_have_channels() -> None:
    """[N, 16, …] as 4 by 4, turned, and back: the table and the turned one are settled alike."""
    text = """(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) { h = Conv (x, w)  s = Reshape (h, four)
        t = Transpose <perm = [0, 2, 1, 3]> (s)  r = Reshape (t, back)  y = Conv (r, end) }"""
    arrays = {
        "w": normal(16, 4, 1, 1), "end": normal(3, 16, 1, 1), "four": np.array([0, 4, 4, 36], np.int64),
        "back": np.array([0, 16, 6, 6], np.int64),
    }  # fmt: skip
    assert sizes_of(cut_half(model_of(text, arrays)).compact)["w"] == [8, 4, 1, 1]
