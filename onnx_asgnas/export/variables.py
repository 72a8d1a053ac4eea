"""Names of the values in a forward pass: few and short, taken up again when a value is no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from onnx_asgnas.export.code import Step, refs

_TENSORS = ("x", "y", "z", "w", "v", "u", "t", "s", "r", "q", "p")

Kind = Callable[[str], str]
"""What a tensor is in the code: "tensor", "mask", "length" or "shape"."""


def variable_names(
    inputs: Mapping[str, str], steps: Sequence[Step], outputs: Sequence[str], kind: Kind, reserved: frozenset[str]
) -> tuple[list[dict[str, str]], list[tuple[str, ...]], dict[str, str]]:
    """For each step the names of what it reads and of what it gives, and the names at the end.

    `inputs` have names already. A value takes the name of one that its step reads last, if that is of its kind.
    """
    last: dict[str, int] = {}
    for at, step in enumerate(steps):
        for name in refs(step.code):
            last[name] = at
    for name in outputs:
        last[name] = len(steps)
    names = dict(inputs)
    free = {name: variable for name, variable in inputs.items() if name in last}
    reads: list[dict[str, str]] = []
    gives: list[tuple[str, ...]] = []
    for at, step in enumerate(steps):
        read = dict.fromkeys(refs(step.code))
        reads.append({name: names[name] for name in read})
        dying = [name for name in read if last[name] == at and name in free]
        ended = [(kind(name), free.pop(name)) for name in dying]
        given = []
        for name in step.outputs:
            if name not in last:
                given.append("_")
                continue
            taken = {*free.values(), *reserved}
            again = next((v for k, v in ended if k == kind(name) and v not in taken), None)
            names[name] = free[name] = again or _new(kind(name), taken)
            given.append(names[name])
        gives.append(tuple(given))
    return reads, gives, names


def _new(kind: str, taken: set[str]) -> str:
    if kind == "tensor":
        for variable in _TENSORS:
            if variable not in taken:
                return variable
    stem = "x" if kind == "tensor" else kind
    return next(name for at in count(1) if (name := stem if at == 1 else f"{stem}_{at}") not in taken)


def input_names(inputs: Sequence[str], kind: Kind) -> dict[str, str]:
    """Names of the inputs of a block."""
    names: dict[str, str] = {}
    for name in inputs:
        names[name] = _new(kind(name), set(names.values()))
    return names
