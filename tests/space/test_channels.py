"""Channel groups as arrays: norms, what is at zero, families, widths; and protection."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.space import zeroed
from onnx_asgnas.surgery import construct
from tests.operators.cutting import sizes_of
from tests.space.channel_networks import WEIGHTS, chain, heads, prunable, residual


def with_zeros(model: onnx.ModelProto, **places: object) -> onnx.ModelProto:
    """A copy with zeros at these places of initializers."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in places:
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[places[tensor.name]] = 0  # type: ignore[call-overload]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return result


def test_norms_are_those_of_the_zeroed_slices() -> None:
    """The trunk's group: rows of w and u, its bias, scale and shift; not the statistics, not what reads it."""
    space = prunable(residual())
    squares, sizes = space.channels.norms_squared(space.parts.graph)
    trunk = [WEIGHTS[name].reshape(8, -1).astype(np.float64) for name in ("w", "b", "scale", "shift", "u")]
    made = [np.square(values).sum(1) for values in trunk]
    within = np.square(WEIGHTS["v"].reshape(6, -1).astype(np.float64)).sum(1)
    assert space.channels.count == 14
    np.testing.assert_allclose(np.sort(squares), np.sort(np.concatenate([sum(made), within])), rtol=1e-6)
    assert sorted(sizes.tolist()) == [8] * 6 + [4 + 1 + 1 + 1 + 6] * 8
    for group, square, size in zip(space.channels.groups(), squares, sizes, strict=True):
        parts = [WEIGHTS[s.initializer].take(s.indices, s.axis) for s in group.slices]
        assert sum(part.size for part in parts) == size
        assert np.isclose(sum(np.square(part, dtype=np.float64).sum() for part in parts), square)


@pytest.mark.parametrize(
    ("places", "number"),
    [
        ({}, 0),
        ({"v": [2, 5]}, 2),
        ({"v": (2, slice(1, None))}, 0),  # one number of the slice is left
        ({"v": (2, 0)}, 0),
        ({"w": 3, "b": 3, "scale": 3, "shift": 3, "u": 3}, 1),
        ({"w": 3, "b": 3, "scale": 3, "shift": 3}, 0),
        ({"w": 3, "b": 3, "scale": 3, "shift": 3, "u": 4}, 0),
    ],
)
def test_a_group_is_at_zero_when_all_its_slices_are(places: dict[str, object], number: int) -> None:
    model = with_zeros(residual(), **places)
    space = prunable(residual())
    graph = TraceGraph.of(model)
    assert int(space.bind(graph).channels.at_zero(graph).sum()) == number
    compact = construct(graph, space.bind(graph))
    lost = sum(sizes_of(residual())[n][0] - sizes_of(compact)[n][0] for n in ("v", "w"))
    assert lost == number


def test_what_zeroing_zeroes_is_at_zero() -> None:
    for model in (residual(), heads(), chain(4, 6, 6, 3)):
        space = prunable(model)
        chosen = list(range(0, space.channels.count, 2))
        graph = TraceGraph.of(zeroed(space, space.parts.graph, chosen))
        assert np.flatnonzero(space.channels.at_zero(graph)).tolist() == chosen


def test_families_are_layers_and_what_is_added_to_them() -> None:
    channels = prunable(residual()).channels
    assert sorted(np.bincount(channels.family_of).tolist()) == [6, 8]
    assert channels.width.tolist() == [1] * 14
    channels = prunable(heads()).channels
    assert channels.family_of.tolist() == [0] * 4
    assert channels.width.tolist() == [3] * 4


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("v", 8), ("m", 8), ("op:Relu", 8), ("w", 6), ("u", 6), ("op:BatchNormalization", 6), ("end", 14), ("y", 14)],
)
def test_protected_operators_keep_what_they_make(pattern: str, count: int) -> None:
    """Of 14 groups those of the branch or those of the trunk stay; the columns of what only reads them may leave."""
    assert prunable(residual(), protect=[pattern]).channels.count == count


def test_a_network_without_channels_has_empty_arrays() -> None:
    space = prunable(chain(4, 3))
    channels = space.channels
    assert (channels.count, channels.groups(), channels.axes) == (0, (), [])
    assert channels.family_of.tolist() == channels.width.tolist() == channels.at_zero(space.parts.graph).tolist() == []
