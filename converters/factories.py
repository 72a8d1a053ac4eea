"""The object that `package.module:factory?argument=value` names: a network, or a function that gives one."""

from __future__ import annotations

from typing import Any

from onnx_asgnas.errors import ConversionError
from onnx_asgnas.specs import call, load_attribute, parse_spec, working_directory_on_path


def build(body: str, *, scheme: str, kind: type | tuple[type, ...], what: str) -> Any:
    """An object of type `kind`: the named one itself, or what it gives when it is called.

    `what` is the kind in words, as "a torch.nn.Module". Raises ConversionError when the object is missing or of another
    type, when it takes other arguments, and when it fails.
    """
    spec = parse_spec(body, ConversionError)
    found = load_attribute(spec.name, ConversionError)
    name = f"{scheme}:{spec.name}"
    fix = f"Name a function or class that gives {what}: {scheme}:package.module:name."
    is_one = isinstance(found, kind) and not isinstance(found, type)
    if is_one and not spec.arguments:
        return found
    if is_one or not callable(found):
        raise ConversionError(f"{name} is of type {type(found).__name__}, not a function that gives {what}", fix=fix)
    try:
        with working_directory_on_path():
            result = call(found, spec.arguments, what=name, error=ConversionError)
    except ConversionError:
        raise
    except Exception as problem:  # the user's code
        raise ConversionError(
            f"{name} fails: {type(problem).__name__}: {problem}", fix="Call it in Python to see where."
        ) from problem
    if not isinstance(result, kind):
        raise ConversionError(f"{name} gives an object of type {type(result).__name__}, not {what}", fix=fix)
    return result


def refuse_pickle(path: str, how: str) -> ConversionError:
    """What is raised for a file that runs code when it is loaded, where the user has not allowed that."""
    return ConversionError(
        f"{path} is a pickle: loading it runs whatever code is in it",
        fix=f"If you trust where it comes from, add --trust. {how}",
        path=path,
    )
