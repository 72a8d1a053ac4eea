"""Lines become fewer: a value that one line alone reads is written where it is read, as people would."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from onnx_asgnas.export.code import Call, Code, Expression, Lit, Ref, Step, mapped, refs, tuple_of, walk
from onnx_asgnas.export.layout import text_of

_WIDEST = 58
"""Characters of a line into which another is put, with short names for what it reads."""
_DEEPEST = 4
_ITEM = re.compile(r"\{\}\[(\{\}|-?\d+)\]")
"""An item of a tuple of lengths."""


def inlined(steps: list[Step], outputs: Collection[str]) -> list[Step]:
    """The same steps, fewer of them, in an order in which they can run."""
    counts = Counter(name for step in steps for name in refs(step.code))
    counts.update(outputs)
    known: dict[str, Expression] = {}
    kept: list[Step] = []
    for step in steps:
        code = _put_in(step.code, known, counts)
        name = step.outputs[0]
        if len(step.outputs) == 1 and (_is_plain(code) or counts[name] == 1):
            known[name] = code
        kept.append(Step(step.outputs, code, step.scope, None, step.data, step.host))
    return _needed(kept, outputs)


def _put_in(code: Expression, known: dict[str, Expression], counts: Counter[str]) -> Expression:
    """Put in what is known, first what is plain, then what fits."""
    code = mapped(code, lambda part: _known_plain(part, known))
    code = mapped(code, _item_of_written)
    for name in dict.fromkeys(refs(code)):
        if name not in known or _is_plain(known[name]):
            continue
        candidate = mapped(code, lambda part, name=name: _wrapped(part, name, known))  # type: ignore[misc]
        apart = _in_slice(code, name) or _breaks_a_base(code, name, known[name]) or _ends_a_layer(code, known[name])
        if _fits(candidate) and not apart:
            code = candidate
    return code


def _wrapped(part: Expression, name: str, known: dict[str, Expression]) -> Expression | None:
    return known[name] if isinstance(part, Ref) and part.tensor == name else None


def _known_plain(part: Expression, known: dict[str, Expression]) -> Expression | None:
    value = known.get(part.tensor) if isinstance(part, Ref) else None
    return value if value is not None and _is_plain(value) else None


def _is_plain(code: Expression) -> bool:
    """Is it as short as a name: a member, another value, a number, or the shape of a value."""
    if isinstance(code, Ref | Lit):
        return True
    if not isinstance(code, Code):
        return False
    if code.text == "{}.shape" or (_ITEM.fullmatch(code.text) and _is_plain(code.arguments[0])):
        return isinstance(code.arguments[0], Ref) or _is_plain(code.arguments[0])
    if code.text == "({},)":
        return _is_plain(code.arguments[0])
    return not code.arguments and code.text.startswith("self.")


def _item_of_written(part: Expression) -> Expression | None:
    """(n,)[0] is n, and (*(n,), m) is (n, m)."""
    if not isinstance(part, Code) or not part.arguments:
        return None
    if part.text == "{}[0]" and isinstance(part.arguments[0], Code) and part.arguments[0].text == "({},)":
        return part.arguments[0].arguments[0]
    if part.text.startswith("({}"):
        inner = [
            each.arguments[0] if isinstance(each, Code) and each.text == "*{}" else None for each in part.arguments
        ]
        if any(isinstance(each, Code) and each.text == "({},)" for each in inner):
            return tuple_of(
                tuple(
                    written.arguments[0] if isinstance(written, Code) and written.text == "({},)" else each
                    for each, written in zip(part.arguments, inner, strict=True)
                )
            )
    return None


def _fits(code: Expression) -> bool:
    short = mapped(code, lambda part: Code("xx") if isinstance(part, Ref) else None)
    return len(text_of(short)) <= _WIDEST and _depth(code) <= _DEEPEST


def _depth(code: Expression) -> int:
    if isinstance(code, Call):
        return 1 + max(map(_depth, (*code.arguments, code.function)), default=0)
    if isinstance(code, Code) and code.arguments:
        return (0 if code.text == "{}.shape" else 1) + max(map(_depth, code.arguments))
    return 0


def _in_slice(code: Expression, name: str) -> bool:
    """Is the value a bound of a slice: those stay names."""
    for part in walk(code):
        if isinstance(part, Code) and ":" in part.text and any(name in refs(each) for each in part.arguments[1:]):
            return True
    return False


def _ends_a_layer(code: Expression, value: Expression) -> bool:
    """Is the value an activation behind a layer that another layer reads: each layer has its line."""
    return (
        _calls(code, "self.") and _calls(value, "F.", "torch.") and any(_calls(part, "self.") for part in walk(value))
    )


def _calls(code: Expression, *prefixes: str) -> bool:
    return isinstance(code, Call) and isinstance(code.function, Code) and code.function.text.startswith(prefixes)


def _breaks_a_base(code: Expression, name: str, value: Expression) -> bool:
    """Would a call of several lines be the base of a method or of a subscript."""
    for part in walk(code):
        base = isinstance(part, Code) and part.text.startswith("{}") and part.atomic
        if base and part.arguments[0] == Ref(name) and not isinstance(value, Call):  # type: ignore[union-attr]
            return True
    return False


def _needed(steps: list[Step], outputs: Collection[str]) -> list[Step]:
    """Without the steps that nobody reads any more."""
    wanted = set(outputs)
    kept = []
    for step in reversed(steps):
        if wanted.isdisjoint(step.outputs):
            continue
        kept.append(step)
        wanted.update(refs(step.code))
    return kept[::-1]
