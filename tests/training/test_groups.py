from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onnx_asgnas.errors import SpaceError
from onnx_asgnas.space import Group, Slice
from onnx_asgnas.training.groups import GroupAtoms


def part(initializer: str, axis: int | None = None, indices: tuple[int, ...] = ()) -> Slice:
    return Slice(initializer=initializer, axis=axis, indices=indices)


def group(name: str, *slices: Slice) -> Group:
    return Group(name=name, slices=slices)


SHAPES = {"conv": (4, 3, 2, 2), "bias": (4,), "linear": (5, 4), "scalar": ()}


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def mask(of: Group, name: str) -> Tensor:
    """Which variables of one tensor a group holds: the definition, slowly."""
    held = torch.zeros(SHAPES[name], dtype=torch.bool)
    for piece in of.slices:
        if piece.initializer == name:
            if piece.axis is None:
                held[...] = True
            else:
                held.index_fill_(piece.axis, torch.tensor(piece.indices), True)
    return held


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    name = draw(st.sampled_from(sorted(SHAPES)))
    axis = draw(st.sampled_from([None, *range(len(SHAPES[name]))]))
    if axis is None:
        return part(name)
    indices = draw(st.lists(st.integers(0, SHAPES[name][axis] - 1), min_size=1, max_size=3))
    return part(name, axis, tuple(indices))


group_lists = st.lists(st.lists(slices(), min_size=1, max_size=5), min_size=1, max_size=6).map(
    lambda parts: [group(f"g{i}", *p) for i, p in enumerate(parts)]
)


@settings(deadline=None, max_examples=200)
@given(group_lists, st.integers(0, 1000), st.data())
def test_sums_and_zeros_of_any_overlapping_slices(groups: list[Group], seed: int, data: st.DataObject) -> None:
    parameters, others = tensors(seed), tensors(seed + 1)
    atoms = GroupAtoms(groups, parameters)
    names = [next(n for n, p in parameters.items() if p is tensor) for tensor in atoms.parameters]
    assert set(names) == {piece.initializer for g in groups for piece in g.slices}
    xs, ys = atoms.parameters, [others[name] for name in names]

    def reference(of: dict[str, Tensor]) -> Tensor:
        return torch.stack([sum((of[n] * mask(g, n)).sum() for n in SHAPES) for g in groups])  # type: ignore[misc]

    torch.testing.assert_close(atoms.sizes, reference({n: torch.ones(s).double() for n, s in SHAPES.items()}))
    torch.testing.assert_close(atoms.inner(xs, ys), reference({n: parameters[n] * others[n] for n in SHAPES}))
    torch.testing.assert_close(atoms.norm_squared(xs), reference({n: parameters[n] ** 2 for n in SHAPES}))

    values = torch.arange(1.0, len(groups) + 1, dtype=torch.float64)
    for name, spread in zip(names, atoms.spread(values), strict=True):
        expected = sum(value * mask(g, name) for value, g in zip(values, groups, strict=True))
        torch.testing.assert_close(spread.expand(SHAPES[name]), expected)

    flags = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    zero = {
        n: sum((mask(g, n) for g, f in zip(groups, flags, strict=True) if f), start=torch.zeros(SHAPES[n]) > 0)
        for n in SHAPES
    }
    inside = [all(bool((zero[n] | ~mask(g, n)).all()) for n in SHAPES) for g in groups]
    assert atoms.inside(torch.tensor(flags)).tolist() == inside
    parts = atoms.zero_parts(torch.tensor(flags))
    for zeroed in parts:
        zeroed.fill(zeroed.parameter)
    for name, before in tensors(seed).items():
        torch.testing.assert_close(parameters[name], before.masked_fill(zero[name], 0.0), rtol=0, atol=0)


def test_a_tensor_all_of_whose_slices_are_zero_is_zero_whole() -> None:
    halves = [group("low", part("conv", 0, (0, 1))), group("high", part("conv", 0, (2, 3)))]
    atoms = GroupAtoms(halves, tensors(0))
    (low,) = atoms.zero_parts(torch.tensor([True, False]))
    assert (low.axis, low.index.tolist()) == (0, [0, 1])
    (whole,) = atoms.zero_parts(torch.tensor([True, True]))
    assert whole.axis is None


def test_filling_leaves_neither_nan_nor_negative_zero() -> None:
    parameters = {"bias": torch.tensor([-0.0, float("nan"), -1.0, 2.0])}
    (found,) = GroupAtoms([group("g", part("bias", 0, (0, 1, 2)))], parameters).zero_parts(torch.tensor([True]))
    found.fill(parameters["bias"])
    assert parameters["bias"].tolist() == [0.0, 0.0, 0.0, 2.0]
    assert not parameters["bias"].signbit().any()


def test_absent_tensors_count_as_zeros() -> None:
    atoms = GroupAtoms([group("g", part("conv", 0, (1,)), part("bias"))], tensors(0))
    conv, bias = atoms.parameters
    assert atoms.norm_squared([None, bias]).item() == pytest.approx(bias.square().sum().item())
    assert atoms.inner([conv, bias], [None, None]).item() == 0.0


def test_no_groups_at_all() -> None:
    atoms = GroupAtoms([], tensors(0))
    assert atoms.parameters == []
    assert atoms.norm_squared([]).shape == (0,)
    assert atoms.zero_parts(torch.zeros(0, dtype=torch.bool)) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (part("absent"), "not a parameter"),
        (part("conv", 4, (0,)), "no axis 4"),
        (part("conv", 0, (4,)), "4 indices on axis 0"),
        (part("conv", 0, (-1,)), "4 indices on axis 0"),
        (part("conv", 0, ()), "4 indices on axis 0"),
    ],
)
def test_slices_that_the_model_does_not_have_are_refused(bad: Slice, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as error:
        GroupAtoms([group("g", bad)], tensors(0))
    assert error.value.group == "g"


def test_sums_of_float32_are_float64() -> None:
    parameters = {"w": torch.full((3, 4), 2.0, dtype=torch.float32)}
    atoms = GroupAtoms([group("g", part("w", 1, (0, 3)))], parameters)
    assert atoms.norm_squared(atoms.parameters).dtype == torch.float64
    np.testing.assert_allclose(atoms.norm_squared(atoms.parameters).numpy(), [24.0])
    (spread,) = atoms.spread(torch.tensor([3.0], dtype=torch.float64))
    assert spread.dtype == torch.float32
    assert spread.tolist() == [[3.0, 0.0, 0.0, 3.0]]


def test_ten_thousand_channel_groups_and_one_that_holds_them() -> None:
    rows = 10_000
    names = ("weight", "bias", "scale")
    held = {name: torch.ones(rows, *([8] if name == "weight" else [])) for name in names}
    groups = [group(f"g{i}", *(part(name, 0, (i,)) for name in names)) for i in range(rows)]
    groups += [group("all", part("weight"), part("scale", 0, tuple(range(rows))))]
    atoms = GroupAtoms(groups, held)
    assert atoms.sizes[:-1].tolist() == [10.0] * rows
    assert atoms.sizes[-1] == 9 * rows


def test_indices_that_the_same_groups_hold_are_one_atom() -> None:
    held = {"w": torch.zeros(6, 5)}
    atoms = GroupAtoms(
        [group("a", part("w", 0, (0, 1, 4))), group("b", part("w", 0, (1, 4))), group("c", part("w", 1, (2,)))], held
    )
    assert atoms.sizes.tolist() == [15.0, 10.0, 6.0]
    assert len(atoms.spread(torch.ones(3, dtype=torch.float64))) == 1
    assert atoms.inside(torch.tensor([True, False, False])).tolist() == [True, True, False]
