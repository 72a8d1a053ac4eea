"""Labels through a Reshape, against numpy's reshape of the labels written out in full."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_asgnas.operators.labelled import Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.reshaping import common_factors, reshape_labels
from tests.operators.cutting import cut_half, free_groups, model_of, normal, sizes_of
from tests.operators.labelling import constants_of, coupling_of, flow_of, groups_at, label, reasons, settled

Sizes = tuple[int, ...]

LISTS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Sizes, Sizes]:
    """Two shapes that multiply runs of the same factors, with axes of size 1 here and there."""
    factors = draw(LISTS)

    def grouped() -> Sizes:
        cuts = sorted(draw(st.sets(st.integers(1, len(factors)), max_size=len(factors))) | {0, len(factors)})
        return tuple(int(np.prod(factors[a:b])) for a, b in pairwise(cuts))

    return grouped(), grouped()


def reshape_flow(source: Sizes, target: Sizes) -> LabelFlow:
    before, after = (", ".join(map(str, shape)) for shape in (source, target))
    text = f"(float[{before}] x) => (float[{after}] y) {{ y = Reshape (x, to) }}"
    return flow_of(text, {"to": np.array(target, np.int64)})


@given(shapes())
def test_common_factors_make_up_both_shapes(pair: tuple[Sizes, Sizes]) -> None:
    factors = common_factors(*pair)
    assert factors is not None
    for shape, own in zip(pair, (factors.before, factors.after), strict=True):
        assert shape == tuple(int(np.prod([factors.sizes[f] for f in axis])) for axis in own)
        assert [f for axis in own for f in axis] == list(range(len(factors.sizes)))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_boundaries_that_do_not_divide_each_other_have_no_factors(one: list[int], two: list[int]) -> None:
    ends = sorted({*np.cumprod(one).tolist(), *np.cumprod(two).tolist()})
    divide = all(high % low == 0 for low, high in pairwise(ends))
    found = common_factors(tuple(one), tuple(two))
    assert (found is not None) == divide


@settings(max_examples=150)
@given(shapes(), st.data())
def test_labels_move_as_data_does(pair: tuple[Sizes, Sizes], data: st.DataObject) -> None:
    source, target = pair
    long = [axis for axis, n in enumerate(source) if n > 1]
    axes = data.draw(st.sets(st.sampled_from(long), min_size=1)) if long else set()
    flow = reshape_flow(source, target)
    found = label(flow, "x", {axis: source[axis] for axis in axes}, len(source))
    bits = data.draw(st.integers(0, 2**found.ids.size - 1))
    zero = np.array([bits >> i & 1 for i in range(found.ids.size)], bool).reshape(found.ids.shape)
    found = Labelled.of(found.ids, zero)
    if not found.long:
        return
    result = reshape_labels(flow, found, source, target)
    assert result.ids.ndim == len(target)
    for before, after in ((found.ids, result.ids), (found.zero, result.zero)):
        assert np.array_equal(np.broadcast_to(before, source).reshape(target), np.broadcast_to(after, target))
    assert not flow.book.ties
    assert not flow.book.freezes


def test_what_would_be_spread_over_many_positions_is_mixed() -> None:
    flow = reshape_flow((1, 2, 4, 300, 300), (1, 2, 360_000))
    found = label(flow, "x", {1: 2, 2: 4}, 5)
    result = reshape_labels(flow, found, (1, 2, 4, 300, 300), (1, 2, 360_000))
    assert result.ids.shape == (1, 2, 1)
    assert settled(flow, found.ids)[0, :, :, 0, 0].tolist() == [[0] * 4, [1] * 4]


def test_a_channel_that_would_be_spread_over_many_positions_stays() -> None:
    flow = reshape_flow((1, 8, 300, 300), (1, 720_000))
    found = label(flow, "x", {1: 8}, 4)
    assert not reshape_labels(flow, found, (1, 8, 300, 300), (1, 720_000)).any
    assert [freeze.reason for freeze in flow.book.freezes] == ["Reshape merges them with an axis of many positions"]


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ((2, 8, 36), (2, 3, 96), "cuts them into parts that do not divide each other"),
        ((2, 8, 36), (2, 8, 35), "of a shape that is not known"),
        ((0, 8, 36), (0, 8, 36), "of a shape that is not known"),
    ],
)
def test_shapes_that_do_not_fit_keep_the_channels(source: Sizes, target: Sizes, reason: str) -> None:
    flow = reshape_flow((2, 8, 36), (2, 8, 36))
    found = label(flow, "x", {1: 8}, 3)
    assert not reshape_labels(flow, found, source, target).any
    assert [freeze.reason for freeze in flow.book.freezes] == [f"Reshape {reason}"]


def test_factors_must_be_the_same_for_another_length_of_open_axes() -> None:
    """Six positions can be cut in threes beside the channels, seven cannot; and where factors move, labels stay."""
    flow = reshape_flow((6, 4), (2, 3, 4))
    found = label(flow, "x", {1: 4}, 2)
    same = reshape_labels(flow, found, (6, 4), (2, 3, 4), ((9, 4), (3, 3, 4)))
    assert same.ids.shape == (1, 1, 4)
    for again in (((9, 4), (9, 2, 2)), ((9, 4), (9, 5)), ((0, 4), (0, 4))):
        assert not reshape_labels(flow, found, (6, 4), (2, 3, 4), again).any


ARRAYS = {
    "w": normal(5, 12),
    "end": normal(12, 3, seed=1),
    "to_heads": np.array([0, 0, 4, 3], np.int64),
    "back": np.array([0, 0, 12], np.int64),
    "fixed": np.array([-1, 12], np.int64),
    "to_rows": np.array([8, 3], np.int64),
}


def test_an_axis_that_is_split_and_merged_again_loses_single_channels_or_heads() -> None:
    """Nothing is computed along the parts: whole rows (heads) or whole columns leave, whichever are more groups."""
    text = """(float[N, 2, 5] x) => (float[N, 2, 3] y) {
        h = MatMul (x, w)  s = Reshape (h, to_heads)  r = Relu (s)  m = Reshape (r, back)  y = MatMul (m, end) }"""
    model = model_of(text, ARRAYS)
    coupling = coupling_of(model)
    assert groups_at(coupling, "s")[0, 0].tolist() == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]
    result = cut_half(model)
    assert free_groups(result) == 4
    assert sizes_of(result.compact) | {"w": [5, 6], "end": [6, 3]} == sizes_of(result.compact)
    assert sorted(constants_of(result.compact)) == [[0, 0, 2, 3], [0, 0, 6]]


def test_a_target_that_follows_by_itself_is_left_alone() -> None:
    """0 and -1 in a target are no lengths: they stay as they are."""
    text = """(float[N, 2, 5] x) => (float[M, 3] y) {
        h = MatMul (x, w)  r = Reshape (h, fixed)  y = MatMul (r, end) }"""
    result = cut_half(model_of(text, ARRAYS))
    assert constants_of(result.compact) == [[-1, 6]]


def test_channels_that_become_positions_stay() -> None:
    text = "(float[2, 5] x) => (float[8, 3] y) { h = MatMul (x, w)  f = Reshape (h, to_rows)  y = Identity (f) }"
    model = model_of(text, ARRAYS)
    assert groups_at(coupling_of(model), "h").max() == -1
    assert reasons(coupling_of(model)) == {"graph output y"}
