"""The exception tree: fields, exit codes, and the picture in the module's docstring."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from onnx_asgnas import errors
from onnx_asgnas.errors import AsgnasError, InputError, ModelError, VerificationError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, AsgnasError)]


def test_an_error_says_what_is_wrong_and_how_to_mend_it() -> None:
    error = ModelError("it is broken", fix="Mend it.", path="a.onnx", node="conv1")
    assert str(error) == "it is broken\nMend it."
    assert (error.message, error.fix, error.path, error.node) == ("it is broken", "Mend it.", "a.onnx", "conv1")
    assert error.fields == {"path": "a.onnx", "node": "conv1"}
    assert str(ModelError("only this")) == "only this"


def test_a_field_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="colour"):
        _ = ModelError("it is broken").colour
    assert not hasattr(ModelError.__new__(ModelError), "path")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_copies_and_other_processes(duplicate: object) -> None:
    error = ModelError("it is broken", fix="Mend it.", path="a.onnx")
    again = duplicate(error)  # type: ignore[operator]
    assert (type(again), str(again), again.path) == (ModelError, str(error), "a.onnx")


def test_exit_codes() -> None:
    assert {c.exit_code for c in CLASSES if c is not VerificationError} == {2}
    assert VerificationError.exit_code == 1


def test_the_picture_shows_every_class_in_its_place() -> None:
    assert errors.__doc__ is not None
    drawn: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"([│├└─ ]*)(\w+Error)\b", line):
            drawn.append((len(found[1]) // 4, found[2]))
    assert {name for _, name in drawn} == {c.__name__ for c in CLASSES}
    above: list[str] = []
    for depth, name in drawn:
        above[depth:] = [name]
        if depth:
            assert getattr(errors, name).__mro__[1].__name__ == above[depth - 1]


def test_every_input_error_is_one() -> None:
    assert all(c.__doc__ for c in CLASSES)
    assert issubclass(ModelError, InputError)
