"""The code that an export is made of: expressions over tensors, literals and members, as trees and not as text.

Trees can be compared, so that blocks of one form become one class, and laid out, so that lines are never too long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

Value: TypeAlias = "int | float | bool | str | tuple[Value, ...] | None"


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of a tensor of the network."""

    tensor: str


@dataclass(frozen=True, slots=True)
class Lit:
    """A number, a text or a tuple of them; `hint` is what it is called where blocks of one form differ in it."""

    value: Value
    hint: str
    default: Value = ""
    """What the keyword that it is given as stands for where it is left out."""


@dataclass(frozen=True, slots=True)
class Own:
    """A submodule, parameter or buffer of the module that the code belongs to."""

    member: Member


@dataclass(frozen=True, slots=True)
class Device:
    """Where the tensors of the running module lie."""


@dataclass(frozen=True, slots=True)
class Code:
    """Text with a `{}` for each argument; an operand of another expression gets parentheses where it is not atomic."""

    text: str
    arguments: tuple[Expression, ...] = ()
    atomic: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A call, the only expression that is laid out over several lines. Keywords are sorted as they were given."""

    function: Expression
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...] = ()


Expression: TypeAlias = "Ref | Lit | Own | Device | Code | Call"


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """What a module holds: `make` builds it in `__init__`, `tensors` are its values by their names in its state.

    `path` is the name that the network gives it, as the parts of layer1.0.conv1.
    """

    path: tuple[str, ...]
    make: Expression
    tensors: Mapping[str, Stored]


@dataclass(frozen=True, slots=True)
class Stored:
    """Values that go to the file of weights: an initializer, transposed or in another shape, or a number."""

    initializer: str = ""
    transposed: bool = False
    shape: tuple[int, ...] | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the forward pass: what it gives, the code, where in the network it stands."""

    outputs: tuple[str, ...]
    code: Expression
    scope: tuple[str, ...] = ()
    module: Expression | None = None
    """The constructor of the module that does the same, for the members of a Sequential."""
    data: str = ""
    """The tensor that such a module would be called on."""
    host: int | None = None
    """Where the value is no tensor: 0 for a Python number, 1 for a tuple of them."""


def call(function: str, *arguments: Expression, **keywords: Expression) -> Call:
    """A call of a function by its name."""
    return Call(Code(function), arguments, tuple(keywords.items()))


def method(data: Expression, name: str, *arguments: Expression, **keywords: Expression) -> Call:
    """A call of a method of a value."""
    return Call(Code(f"{{}}.{name}", (data,)), arguments, tuple(keywords.items()))


def infix(operator: str, left: Expression, right: Expression) -> Code:
    """Two operands with an operator between them."""
    return Code(f"{{}} {operator} {{}}", (left, right), atomic=False)


def index(data: Expression, text: str, *arguments: Expression) -> Code:
    """A subscript."""
    return Code(f"{{}}[{text}]", (data, *arguments))


def tuple_of(items: tuple[Expression, ...]) -> Code:
    """A tuple of expressions."""
    inner = ", ".join(["{}"] * len(items))
    return Code(f"({inner},)" if len(items) == 1 else f"({inner})", items)


def children(expression: Expression) -> tuple[Expression, ...]:
    """The parts of an expression, in the order in which they are written."""
    if isinstance(expression, Code):
        return expression.arguments
    if isinstance(expression, Call):
        return (expression.function, *expression.arguments, *(value for _, value in expression.keywords))
    return ()


def walk(expression: Expression) -> Iterator[Expression]:
    """An expression and all that it is made of, in the order in which it is written."""
    yield expression
    for child in children(expression):
        yield from walk(child)


def refs(expression: Expression) -> list[str]:
    """The tensors that an expression reads, once for each time."""
    return [part.tensor for part in walk(expression) if isinstance(part, Ref)]


def members(expression: Expression) -> list[Member]:
    """The members that an expression reads, each once."""
    return list(dict.fromkeys(part.member for part in walk(expression) if isinstance(part, Own)))


def mapped(expression: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with the parts for which `change` gives another, and the others as they are."""
    changed = change(expression)
    if changed is not None:
        return changed
    if isinstance(expression, Code):
        return replace(expression, arguments=tuple(mapped(each, change) for each in expression.arguments))
    if isinstance(expression, Call):
        return Call(
            mapped(expression.function, change),
            tuple(mapped(each, change) for each in expression.arguments),
            tuple((name, mapped(each, change)) for name, each in expression.keywords),
        )
    return expression
