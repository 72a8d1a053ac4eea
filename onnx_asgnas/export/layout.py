"""Expressions as text, over as few lines as fit, in the layout that ruff and black give."""

from __future__ import annotations

import json
import math
import re

from onnx_asgnas.export.code import Call, Code, Device, Expression, Lit, Value

WIDTH = 88


def value_text(value: Value) -> str:
    """A number, a text or a tuple as Python writes it."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        inner = ", ".join(map(value_text, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value).replace("e+", "e")


def text_of(code: Expression) -> str:
    """An expression on one line."""
    match code:
        case Lit():
            return value_text(code.value)
        case Code():
            if ":" in code.text and _is_base(code.text):
                return _sliced(code)
            operands = [text_of(each) for each in code.arguments]
            if not code.atomic or _is_base(code.text):
                operands = [
                    f"({text})" if _needs_parentheses(each, text, at == 0 and _is_base(code.text)) else text
                    for at, (each, text) in enumerate(zip(code.arguments, operands, strict=True))
                ]
            return code.text.format(*operands)
        case Call():
            return f"{text_of(code.function)}({', '.join(_arguments(code))})"
        case Device():
            return "torch.get_default_device()"
        case _:
            raise TypeError(f"{code} has no name yet")


def _sliced(code: Code) -> str:
    """A subscript with slices, whose colons have spaces where a bound is more than a name or a number."""
    base, *bounds = code.arguments
    rest = iter(bounds)
    parts = []
    for part in code.text[3:-1].split(", "):
        sides = [text_of(next(rest)) if side == "{}" else side for side in part.split(":")]
        wide = any(not re.fullmatch(r"-?\w*", side) for side in sides)
        text = " : ".join(sides).strip() if wide else ":".join(sides)
        parts.append(text.replace(":  :", "::"))
    return f"{text_of(Code('{}[', (base,)))}{', '.join(parts)}]"


def _is_base(text: str) -> bool:
    return text.startswith(("{}.", "{}["))


def _needs_parentheses(part: Expression, text: str, base: bool) -> bool:
    if isinstance(part, Code):
        return not part.atomic
    return base and isinstance(part, Lit) and not text.startswith("(")


def _arguments(code: Call) -> list[str]:
    return [
        *map(text_of, code.arguments),
        *(f"{name}={text_of(value)}" for name, value in _keywords(code)),
    ]


def _keywords(code: Call) -> list[tuple[str, Expression]]:
    """The keywords without those that are what they stand for when left out."""
    return [
        (name, value)
        for name, value in code.keywords
        if not (isinstance(value, Lit) and value.default != "" and value.value == value.default)
    ]


def laid_out(code: Expression, indent: int, before: str = "", after: str = "") -> list[str]:
    """The lines of `before`, the expression and `after`, indented."""
    space = " " * indent
    flat = f"{space}{before}{text_of(code)}{after}"
    if len(flat) <= WIDTH:
        return [flat]
    if isinstance(code, Call) and (code.arguments or code.keywords):
        return _broken(code, indent, before, after)
    if isinstance(code, Code) and code.atomic and code.text.startswith("(") and code.arguments:
        items = [line for item in code.arguments for line in laid_out(item, indent + 4, "", ",")]
        return [f"{space}{before}(", *items, f"{space}){after}"]
    if isinstance(code, Lit) and isinstance(code.value, tuple):
        items = [line for item in code.value for line in laid_out(Lit(item, ""), indent + 4, "", ",")]
        return [f"{space}{before}(", *items, f"{space}){after}"]
    return [f"{space}{before}(", f"{space}    {text_of(code)}", f"{space}){after}"]


def _broken(code: Call, indent: int, before: str, after: str) -> list[str]:
    space, inner = " " * indent, " " * (indent + 4)
    head = f"{space}{before}{text_of(code.function)}("
    together = inner + ", ".join(_arguments(code))
    if len(together) <= WIDTH:
        return [head, together, f"{space}){after}"]
    lines = [line for each in code.arguments for line in laid_out(each, indent + 4, "", ",")]
    for name, value in _keywords(code):
        lines += laid_out(value, indent + 4, f"{name}=", ",")
    return [head, *lines, f"{space}){after}"]


def signature(name: str, parameters: list[str], result: str, indent: int) -> list[str]:
    """The first line of a function, or its first lines."""
    space = " " * indent
    flat = f"{space}def {name}({', '.join(parameters)}) -> {result}:"
    if len(flat) <= WIDTH:
        return [flat]
    together = f"{space}    {', '.join(parameters)}"
    body = [together] if len(together) <= WIDTH else [f"{space}    {each}," for each in parameters]
    return [f"{space}def {name}(", *body, f"{space}) -> {result}:"]
