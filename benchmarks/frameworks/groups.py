"""What may leave a network, said in the common names of its weights: comparable whatever graph it was exported to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from benchmarks.frameworks.weights import Weights
from onnx_asgnas.space import SearchSpace

Part = tuple[str, int, int]
"""A weight's common name, an axis of it as PyTorch counts them, and an index."""
Structure = tuple[tuple[str, ...], bool, int, int]
"""The variables that force a structure to zero, whether it is minimal, and its parameters and MACs."""

_ROLES = {"kernel": "weight", "gamma": "weight", "scale": "weight", "beta": "bias"}
_TURNED = {4: (2, 3, 1, 0), 2: (1, 0)}
"""The axis of a kernel [H, W, I, O], or matrix [I, O], in the order of the common weights."""


def common_name(name: str) -> str:
    """The common name of a parameter, from Keras (`layer1_0_conv1/kernel`) or Flax (`layer1.0.conv1.kernel`)."""
    *scopes, role = (step for step in name.replace("/", ".").split(".") if step not in ("layers", "model"))
    scope = ".".join(scopes)
    return f"{scope.replace('_', '.') if '/' in name else scope}.{_ROLES.get(role, role)}"


def channel_groups(space: SearchSpace, weights: Weights) -> list[frozenset[Part]]:
    """Each free group of channels, in order, by the parts of weights that are at zero with it."""
    graph = space.parts.graph
    found = []
    for group in space.channels.groups():
        parts = set()
        for piece in group.slices:
            name, shape = common_name(piece.initializer), graph.array(piece.initializer).shape
            axis = piece.axis or 0
            if name in weights and shape != weights[name].shape:
                axis = _TURNED[len(shape)][axis]
            parts |= {(name, axis, index) for index in piece.indices}
        found.append(frozenset(parts))
    return found


def kernels_of(space: SearchSpace, weights: Weights) -> list[frozenset[object]]:
    """Each group of the space, in order, by kernels alone, whose names survive every exporter.

    Before training the scales of all normalisations are equal, so that nobody can tell which is whose.
    """
    kernels = {name for name, values in weights.items() if values.ndim == 4}
    if space.mode == "erase":
        return [frozenset(kernels & set(map(common_name, s.variables))) for s in space.candidates]
    return [frozenset(p for p in parts if p[0] in kernels) for parts in channel_groups(space, weights)]


def structures(space: SearchSpace) -> frozenset[Structure]:
    """Each structure that may be erased."""
    return frozenset(
        (tuple(sorted(map(common_name, s.variables))), s.minimal, s.params, s.macs) for s in space.candidates
    )


def fingerprint(groups: Iterable[object]) -> str:
    """A short hash of groups or structures, equal where they are."""
    told = sorted(repr(sorted(group) if isinstance(group, frozenset) else group) for group in groups)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
