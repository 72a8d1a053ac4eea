"""Objectives as users write them: `logits=cross_entropy?label_smoothing=0.1:1,aux=cross_entropy:0.4`."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_asgnas.errors import InputError
from onnx_asgnas.specs import Spec, call, load_attribute, parse_spec
from onnx_asgnas.training.losses.kinds import KINDS, Kind, Own
from onnx_asgnas.training.losses.objective import Objective, Term

_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+")
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of a list `output=name?argument=value:weight`; output and weight may be missing."""

    output: str | None
    spec: Spec
    weight: float = 1.0


def parse_list(text: str) -> tuple[Part, ...]:
    """The entries of a list with commas between; raises InputError."""
    return tuple(_part(entry) for entry in _entries(text))


def objective(text: str, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Objective:
    """The objective that a text names, for a network with inputs and outputs of these names.

    Each loss is a kind (`cross_entropy`, `pixel_cross_entropy`, `next_token`, `mse`, `l1`, `bce_with_logits`) or
    `python:package.module:callable`, with arguments behind `?`, of which `target=NAME` says the name of its targets.
    Without an output it is on the only one, or on that called logits. Raises InputError.
    """
    terms = []
    for part in parse_list(text):
        kind, target = _kind(part.spec, inputs)
        at = _output(part, outputs, isinstance(kind, Own))
        name = outputs[at] if at is not None and outputs else part.output or ""
        terms.append(Term(kind=kind, weight=part.weight, output=at, name=name, target=target))
    return Objective(terms=tuple(terms))


def place_of(name: str, outputs: Sequence[str]) -> int:
    """The place of an output; raises InputError where there is none of that name."""
    if name not in outputs:
        raise InputError(f"the model has no output {name!r}", fix=f"It has: {', '.join(outputs)}.", output=name)
    return list(outputs).index(name)


def _kind(spec: Spec, inputs: Sequence[str]) -> tuple[Kind, str]:
    """The kind with its arguments, and the name of its targets."""
    arguments = dict(spec.arguments)
    target = arguments.pop("target", None)
    scheme, _, path = spec.name.partition(":")
    kind: Kind
    if scheme == "python":
        function = load_attribute(path, InputError)
        if not callable(function):
            raise InputError(f"{path} is not callable", fix="Name a function (output, target) → scalar tensor.")
        kind = Own.of(functools.partial(function, **arguments) if arguments else function)
    elif spec.name in KINDS:
        kind = call(KINDS[spec.name], arguments, what=f"loss {spec.name}", error=InputError)
    else:
        choices = ", ".join(sorted(KINDS))
        raise InputError(
            f"there is no loss {spec.name!r}", fix=f"Choose one of: {choices}, python:package.module:callable."
        )
    return kind, kind.target(inputs) if target is None else str(target)


def _output(part: Part, outputs: Sequence[str], own: bool) -> int | None:
    """The place of the output that a loss is on; None for what a function of one's own takes as it comes."""
    if part.output is not None:
        return place_of(part.output, outputs)
    if own:
        return None
    if len(outputs) > 1 and "logits" not in outputs:
        raise InputError(
            f"the model has {len(outputs)} outputs ({', '.join(outputs)}), and {part.spec.name} takes one",
            fix=f"Say which one: --loss '{outputs[0]}={part.spec.name}'; several with weights: a=LOSS:1,b=LOSS:0.4.",
        )
    return list(outputs).index("logits") if len(outputs) > 1 else 0


def _part(entry: str) -> Part:
    head, equals, rest = entry.partition("=")
    named = bool(equals) and "?" not in head
    body = rest if named else entry
    front, colon, tail = body.rpartition(":")
    weighed = bool(colon) and _NUMBER.fullmatch(tail) is not None
    if not (front if weighed else body):
        raise InputError(f"{entry!r} names nothing", fix="Write name?argument=value:weight, with commas between.")
    spec: Any = parse_spec(front if weighed else body, InputError)
    return Part(head.strip() if named else None, spec, float(tail) if weighed else 1.0)


def _entries(text: str) -> list[str]:
    """What stands between the commas that are in no bracket."""
    entries, depth = [""], 0
    for sign in text:
        depth += (sign in _OPEN) - (sign in _CLOSE)
        if sign == "," and depth == 0:
            entries.append("")
        else:
            entries[-1] += sign
    return [entry.strip() for entry in entries]
