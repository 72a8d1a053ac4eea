"""Sums over overlapping groups of variables, without a loop over groups.

Groups overlap: a larger structure's group holds a smaller one's, a structure's holds its channels'. So the variables
are partitioned into *atoms*, largest sets of variables that every group holds whole or not at all, and a group is a
union of atoms. A sum over every group is then one reduction per tensor over the axes that no group slices, one
`index_add_` into the atoms, and one sparse product of the incidence matrix (groups × atoms) with the atoms' sums. The
transposed product takes a value per group back to the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onnx_asgnas.errors import SpaceError
from onnx_asgnas.space import Group

__all__ = ["GroupAtoms", "ZeroPart"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Variable:
    """One tensor that groups touch, and the grid of its sliced axes, row-major, in which its atoms lie.

    A tensor that groups only ever take whole has no sliced axis and a grid of one position.
    """

    name: str
    parameter: Tensor
    axes: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(self.parameter.shape[axis] for axis in self.axes)

    @property
    def broadcast(self) -> tuple[int, ...]:
        """Shape in which one value per grid position broadcasts against the tensor."""
        return tuple(size if axis in self.axes else 1 for axis, size in enumerate(self.parameter.shape))

    @property
    def reduced(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(self.parameter.ndim) if axis not in self.axes)

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ x·y at every grid position."""
        if not self.axes:
            return torch.dot(x.reshape(-1), y.reshape(-1))
        return (x * y).sum(self.reduced) if self.reduced else x * y

    def norm_squared(self, x: Tensor) -> Tensor:
        """Σ x² at every grid position."""
        if self.axes and not self.reduced:
            return x.square()
        norm: Tensor = torch.linalg.vector_norm(x, dim=self.reduced)
        return norm.square()


@dataclass(frozen=True, slots=True)
class ZeroPart:
    """A part of one tensor that is to be zero: all of it (`axis` None), or `index` along one axis."""

    parameter: Tensor
    axis: int | None
    index: Tensor

    def fill(self, tensor: Tensor) -> None:
        """Make this part of `tensor`, of the parameter's shape, exactly +0.0 whatever it holds, NaN included."""
        if self.axis is None:
            tensor.zero_()
        else:
            tensor.index_fill_(self.axis, self.index, 0.0)


class GroupAtoms:
    """The groups of a space over the tensors that hold their variables.

    Raises SpaceError when a slice names a tensor, an axis or an index that `parameters` do not have. Lists of tensors
    go by the order of the property `parameters`; None in one counts as zeros. Sums are float64.
    """

    def __init__(self, groups: Sequence[Group], parameters: Mapping[str, Tensor]) -> None:
        self.n_groups = len(groups)
        self._variables: list[_Variable] = []
        atoms_of_positions: list[Indices] = []
        pairs: list[Indices] = []  # group, atom
        n_atoms = 0
        for name, owners in _by_variable(groups, parameters).items():
            axes = tuple(sorted(axis for axis in owners if axis is not None))
            variable = _Variable(name, parameters[name], axes)
            atoms, held = _partition(variable.grid, axes, owners)
            self._variables.append(variable)
            atoms_of_positions.append(atoms.reshape(-1) + n_atoms)
            pairs.append(held + np.array([[0], [n_atoms]]))
            n_atoms += int(atoms.max()) + 1

        device = self._variables[0].parameter.device if self._variables else torch.device("cpu")
        group_of_pair, atom_of_pair = _distinct(np.concatenate(pairs or [np.empty((2, 0), np.int64)], axis=1))
        self._n_atoms = n_atoms
        self._atom_of_position = torch.from_numpy(np.concatenate(atoms_of_positions or [_NO_INDICES])).to(device)
        self._group_of_pair = torch.from_numpy(group_of_pair.copy()).to(device)
        self._atom_of_pair = torch.from_numpy(atom_of_pair.copy()).to(device)
        self._positions = [int(np.prod(v.grid)) for v in self._variables]
        self._nothing = [torch.zeros(size, device=device) for size in self._positions]
        self.sizes = self._over_groups(
            torch.full((n,), v.parameter.numel() / n, device=device)
            for v, n in zip(self._variables, self._positions, strict=True)
        )

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that some group touches."""
        return [v.parameter for v in self._variables]

    def inner(self, xs: Sequence[Tensor | None], ys: Sequence[Tensor | None]) -> Tensor:
        """⟨x_g, y_g⟩ of every group, float64 [groups]."""
        return self._over_groups(
            nothing if x is None or y is None else v.inner(x, y)
            for v, x, y, nothing in zip(self._variables, xs, ys, self._nothing, strict=True)
        )

    def norm_squared(self, xs: Sequence[Tensor | None]) -> Tensor:
        """‖x_g‖² of every group, float64 [groups]."""
        return self._over_groups(
            nothing if x is None else v.norm_squared(x)
            for v, x, nothing in zip(self._variables, xs, self._nothing, strict=True)
        )

    def spread(self, values: Tensor) -> list[Tensor]:
        """For every tensor, at each variable the sum of `values` [groups] over the groups that hold it.

        The results broadcast against their tensors and have their type.
        """
        per_atom = values.new_zeros(self._n_atoms).index_add_(0, self._atom_of_pair, values[self._group_of_pair])
        return [
            part.to(v.parameter.dtype).view(v.broadcast)
            for v, part in zip(self._variables, self._at_positions(per_atom), strict=True)
        ]

    def zero_parts(self, groups: Tensor) -> list[ZeroPart]:
        """What is zero once the groups of a mask, bool [groups], are: the union of their slices, tensor by tensor."""
        parts: list[ZeroPart] = []
        for v, positions in zip(self._variables, self._at_positions(self._atoms_of(groups)), strict=True):
            if positions.all():
                parts.append(ZeroPart(v.parameter, None, positions.new_empty(0, dtype=torch.long)))
            elif positions.any():
                parts.extend(_axis_parts(v, positions.view(v.grid)))
        return parts

    def inside(self, groups: Tensor) -> Tensor:
        """Which groups lie within the union of the groups of a mask; both bool [groups]."""
        left_out = ~self._atoms_of(groups)[self._atom_of_pair]
        inside = torch.ones_like(groups)
        inside[self._group_of_pair[left_out]] = False
        return inside

    def _atoms_of(self, groups: Tensor) -> Tensor:
        """The atoms that the groups of a mask hold, bool [atoms]."""
        held = torch.zeros(self._n_atoms, dtype=torch.bool, device=groups.device)
        held[self._atom_of_pair[groups[self._group_of_pair]]] = True
        return held

    def _at_positions(self, per_atom: Tensor) -> tuple[Tensor, ...]:
        """Values [atoms] at the grid positions of each tensor, flat."""
        return torch.split(per_atom[self._atom_of_position], self._positions)

    def _over_groups(self, at_positions: Iterable[Tensor]) -> Tensor:
        """Sums over every group, float64 [groups], of values at the grid positions of each tensor."""
        values = [part.reshape(-1) for part in at_positions]
        sums = torch.zeros(self._n_atoms + self.n_groups, dtype=torch.float64, device=self._atom_of_pair.device)
        atoms, groups = sums[: self._n_atoms], sums[self._n_atoms :]
        if values:
            atoms.index_add_(0, self._atom_of_position, torch.cat(values).double())
            groups.index_add_(0, self._group_of_pair, atoms[self._atom_of_pair])
        return groups


_NO_INDICES = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Owners:
    """Which groups hold which indices of one axis of a tensor (or, whole, the tensor): two arrays in step."""

    groups: Indices
    indices: Indices


def _by_variable(groups: Sequence[Group], parameters: Mapping[str, Tensor]) -> dict[str, dict[int | None, _Owners]]:
    """The slices of all groups by tensor and axis, in the order in which they are first named."""
    found: dict[tuple[str, int | None], tuple[list[int], list[tuple[int, ...]]]] = {}
    for number, group in enumerate(groups):
        for part in group.slices:
            numbers, parts = found.setdefault((part.initializer, part.axis), ([], []))
            numbers.append(number)
            parts.append(part.indices)
    result: dict[str, dict[int | None, _Owners]] = {}
    for (name, axis), (numbers, parts) in found.items():
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        indices = np.fromiter(chain.from_iterable(parts), np.int64, int(lengths.sum()))
        owners = np.array(numbers, np.int64)
        _check(groups, owners, lengths, name, axis, indices, parameters)
        result.setdefault(name, {})[axis] = _Owners(owners if axis is None else owners.repeat(lengths), indices)
    return result


def _check(
    groups: Sequence[Group],
    owners: Indices,
    lengths: Indices,
    name: str,
    axis: int | None,
    indices: Indices,
    parameters: Mapping[str, Tensor],
) -> None:
    """Refuse slices that the parameters do not have; `lengths` says how many of the indices each owner holds."""
    culprit, problem = 0, ""
    if name not in parameters:
        problem = "is not a parameter of the model"
    elif axis is None:
        return
    elif not 0 <= axis < parameters[name].ndim:
        problem = f"has no axis {axis}"
    else:
        size = parameters[name].shape[axis]
        bad = owners.repeat(lengths)[(indices < 0) | (indices >= size)]
        wrong = np.concatenate([owners[lengths == 0], bad])
        if not len(wrong):
            return
        culprit = int(np.flatnonzero(owners == wrong.min())[0])
        problem = f"has {size} indices on axis {axis}, of which the group wants others or none"
    group = groups[owners[culprit]].name
    raise SpaceError(
        f"group {group!r} holds {name!r}, which {problem}",
        fix="Use the search space that was made from this model, and train what it removes.",
        group=group,
        tensor=name,
    )


def _partition(
    grid: tuple[int, ...], axes: tuple[int, ...], owners: Mapping[int | None, _Owners]
) -> tuple[Indices, Indices]:
    """One tensor's atoms: the atom at every grid position, and pairs (group, atom), [2, pairs].

    Indices of an axis that the same groups slice form a class; an atom is a cell of the classes of all sliced axes.
    """
    classes = [_classes(size, owners[axis]) for axis, size in zip(axes, grid, strict=True)]
    counts = [int(c.max()) + 1 for c in classes]
    cells = np.arange(int(np.prod(counts))).reshape(counts)

    whole = owners[None].groups if None in owners else _NO_INDICES
    pairs = [np.stack([whole.repeat(cells.size), np.tile(cells.reshape(-1), len(whole))])]
    for position, axis in enumerate(axes):
        held = _distinct(np.stack([owners[axis].groups, classes[position][owners[axis].indices]]))
        atoms = np.moveaxis(cells, position, 0).reshape(counts[position], -1)[held[1]]
        pairs.append(np.stack([held[0].repeat(atoms.shape[1]), atoms.reshape(-1)]))
    return cells[np.ix_(*classes)] if classes else cells, np.concatenate(pairs, axis=1)


def _classes(size: int, owners: _Owners) -> Indices:
    """The class of each index of an axis: equal for indices that the same groups hold, numbered as they first occur.

    Refines by one owner of each index at a time, in order, so the loop is as long as one index has owners.
    """
    indices, groups = _distinct(np.stack([owners.indices, owners.groups]))
    counts = np.bincount(indices, minlength=size)
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    number, new = np.zeros(size, np.int64), 1
    for depth in range(int(counts.max(initial=0))):
        deeper = np.flatnonzero(counts > depth)
        _, classes = _numbered(np.stack([number[deeper], groups[starts[deeper] + depth]]))
        number[deeper] = classes + new
        new += int(classes.max()) + 1
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]


def _distinct(pairs: Indices) -> Indices:
    """The columns of [2, n] numbers from 0 on, sorted, each once."""
    return _numbered(pairs)[0]


def _numbered(pairs: Indices) -> tuple[Indices, Indices]:
    """The columns of [2, n] numbers from 0 on, sorted, each once; and for each column its place among them."""
    base = int(pairs[1].max(initial=0)) + 1
    keys, inverse = np.unique(pairs[0] * base + pairs[1], return_inverse=True)
    return np.stack(np.divmod(keys, base)), inverse


def _axis_parts(variable: _Variable, zero: Tensor) -> list[ZeroPart]:
    """A union of slices, given as a mask of the grid, as an index list per axis: the rows of it that are all zero."""
    parts: list[ZeroPart] = []
    for position, axis in enumerate(variable.axes):
        rows = zero.movedim(position, 0).flatten(1).all(1) if zero.ndim > 1 else zero
        if rows.any():
            parts.append(ZeroPart(variable.parameter, axis, rows.nonzero().flatten()))
    return parts
