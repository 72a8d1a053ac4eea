"""Sources as users write them: `name?argument=value&argument=value`, and the functions that they call."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_asgnas.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A source taken apart: what stands before the last `?`, and its arguments as Python values.

    A value is read as a Python literal where it is one (`4`, `0.5`, `None`, `(1,2)`, `true`), else as text.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.name}?{query}" if query else self.name


def parse_spec(text: str, error: type[InputError]) -> Spec:
    """Take `name?argument=value&…` apart; raises `error` where an argument has no name, no value, or comes twice."""
    name, mark, query = text.rpartition("?")
    if not mark:
        return Spec(name=text)
    arguments: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not (key.isidentifier() and equals):
            raise error(f"{part!r} in {text!r} is not an argument", fix="Write name?argument=value&argument=value.")
        if key in arguments:
            raise error(f"argument {key!r} comes twice in {text!r}", fix="Give it once.", argument=key)
        arguments[key] = _literal(value)
    return Spec(name=name, arguments=arguments)


def call(function: Callable[..., Any], arguments: Mapping[str, Any], *, what: str, error: type[InputError]) -> Any:
    """`function(**arguments)`, with arguments that do not fit its signature told as `error` before it runs.

    `what` names the callee in the message. Parameters annotated with int, float, str or bool are checked for their
    type; what the function itself raises passes through.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none: they must judge for themselves
        return function(**arguments)
    accepted = _keyword_parameters(signature)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    usage = f"It takes: {', '.join(map(_usage, accepted.values()))}." if accepted else "It takes no arguments."
    unknown = [] if takes_any else [key for key in arguments if key not in accepted]
    if unknown:
        raise error(f"{what} has no argument {unknown[0]!r}", fix=usage, argument=unknown[0])
    try:
        signature.bind(**arguments)
    except TypeError as problem:
        raise error(f"{what} cannot be called so: {problem}", fix=usage) from None
    kinds = _annotated_kinds(function)
    for key, value in arguments.items():
        kind = kinds.get(key)
        if kind is not None and not _is_a(value, kind):
            raise error(f"argument {key}={value!r} of {what} is not of type {kind.__name__}", fix=usage, argument=key)
    return function(**arguments)


def load_attribute(path: str, error: type[InputError]) -> Any:
    """The object that `package.module:attribute` names, found from the current directory too.

    Raises `error` when the text has no colon, when the module does not exist or fails on import, or when it has no
    such attribute.
    """
    module_name, colon, attribute = path.partition(":")
    if not (colon and module_name and attribute):
        raise error(f"{path!r} does not name an object", fix="Write package.module:name.")
    with working_directory_on_path():
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as problem:
            missing = problem.name or module_name
            if module_name == missing or module_name.startswith(f"{missing}."):
                fix = f"Run from the folder that holds {module_name.partition('.')[0]}, or install it."
                raise error(f"there is no module {module_name!r}", fix=fix, module=module_name) from None
            fix = f"Install {missing} in this environment."
            raise error(
                f"module {module_name!r} needs {missing!r}, which is missing", fix=fix, module=module_name
            ) from None
        except Exception as problem:
            text = f"module {module_name!r} fails on import: {type(problem).__name__}: {problem}"
            raise error(text, fix=f"Try: python -c 'import {module_name}'.", module=module_name) from problem
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            fix = f"It has: {', '.join(public[:20])}." if public else "Check the name."
            raise error(f"module {module_name!r} has no {attribute!r}", fix=fix, module=module_name)
        found = getattr(found, name)
    return found


@contextlib.contextmanager
def working_directory_on_path() -> Iterator[None]:
    """Let imports inside find modules of the current directory, as `python -m` does."""
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _keyword_parameters(signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in signature.parameters.items() if p.kind in kinds}


def _usage(parameter: inspect.Parameter) -> str:
    return parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"


def _annotated_kinds(function: Callable[..., Any]) -> dict[str, type]:
    """The parameters annotated with one of the plain types; names that cannot be resolved count as not annotated."""
    target = function.func if isinstance(function, functools.partial) else function
    target = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(target)
    except Exception:  # annotations of foreign code may be anything
        return {}
    return {name: hint for name, hint in hints.items() if hint in (int, float, str, bool)}


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
