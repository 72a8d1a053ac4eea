"""Sources written as `name?argument=value`, and what they call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnx_asgnas.errors import DataError
from onnx_asgnas.specs import Spec, call, load_attribute, parse_spec


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("net", "net", {}),
        ("net?", "net", {}),
        ("net?width=8&rate=0.5&name=a b&deep=true&last=None", "net", {"width": 8, "rate": 0.5, "name": "a b"}),
        ("npz:/a?b/c.npz?train=6000", "npz:/a?b/c.npz", {"train": 6000}),
        ("net?sizes=(1,2)&formula=a=b", "net", {"sizes": (1, 2), "formula": "a=b"}),
    ],
)
def test_a_text_is_taken_apart(text: str, name: str, arguments: dict[str, object]) -> None:
    spec = parse_spec(text, DataError)
    assert spec.name == name
    assert arguments.items() <= spec.arguments.items()


def test_words_of_other_spellings_are_values() -> None:
    assert parse_spec("net?deep=true&last=None", DataError).arguments == {"deep": True, "last": None}


@pytest.mark.parametrize("text", ["net?width", "net?=3", "net?1x=3", "net?a=1&a=2"])
def test_a_broken_text_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_spec(text, DataError)


def test_a_spec_writes_itself() -> None:
    assert str(Spec(name="net", arguments={"width": 8, "name": "x"})) == "net?width=8&name=x"
    assert str(Spec(name="net")) == "net"


def scale(value: int, *, by: float = 2.0, name: str = "x") -> tuple[float, str]:
    return value * by, name


class Scaled:
    def __init__(self, value: int) -> None:
        self.value = value


def anything(**options: object) -> dict[str, object]:
    return options


def test_a_call_passes_its_arguments() -> None:
    assert call(scale, {"value": 3, "by": 2}, what="scale", error=DataError) == (6, "x")
    assert call(anything, {"a": 1}, what="anything", error=DataError) == {"a": 1}
    assert call(Scaled, {"value": 3}, what="Scaled", error=DataError).value == 3
    assert call(dict, {"a": 1}, what="dict", error=DataError) == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": 3, "to": 1}, "scale has no argument 'to'\nIt takes: value, by=2.0, name=x."),
        ({}, "scale cannot be called so: missing a required argument: 'value'"),
        ({"value": "a"}, "argument value='a' of scale is not of type int"),
        ({"value": True}, "argument value=True of scale is not of type int"),
        ({"value": 1, "by": "2"}, "argument by='2' of scale is not of type float"),
        ({"value": 1, "name": 3}, "argument name=3 of scale is not of type str"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_before_it_runs(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        call(scale, arguments, what="scale", error=DataError)
    assert message in str(caught.value)


def test_a_class_is_checked_by_its_constructor() -> None:
    with pytest.raises(DataError, match="argument value='a'"):
        call(Scaled, {"value": "a"}, what="Scaled", error=DataError)


def test_what_the_function_raises_passes_through() -> None:
    def broken() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        call(broken, {}, what="broken", error=DataError)


def test_an_attribute_is_found_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("class A:\n    b = 5\n_hidden = 1\n")
    monkeypatch.chdir(tmp_path)
    path = [*sys.path]
    assert load_attribute("found_here:A.b", DataError) == 5
    assert sys.path == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_colon", "does not name an object"),
        (":name", "does not name an object"),
        ("missing_module:name", "there is no module 'missing_module'"),
        ("missing_package.part:name", "there is no module 'missing_package.part'"),
        ("broken:name", "module 'broken' fails on import: ZeroDivisionError: division by zero"),
        ("needy:name", "module 'needy' needs 'a_package_nobody_has', which is missing"),
        ("plain:absent", "module 'plain' has no 'absent'\nIt has: present."),
        ("plain:present.absent", "module 'plain' has no 'present.absent'"),
    ],
)
def test_what_cannot_be_found_is_said(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import a_package_nobody_has\n")
    (tmp_path / "plain.py").write_text("present = 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_attribute(path, DataError)
    assert message in str(caught.value)
