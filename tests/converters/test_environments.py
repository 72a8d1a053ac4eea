"""Environments: where they lie, what state they are in, and conversions that run in another process."""

from __future__ import annotations

import json
import sys
import venv
from pathlib import Path

import pytest

from onnx_asgnas.converters import convert_with_report, environments, isolation
from onnx_asgnas.converters.export import Source
from onnx_asgnas.converters.inputs import parse_input
from onnx_asgnas.errors import ConversionError, PackageError

SOURCES = Path(__file__).parent / "sources"


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "environments"))
    monkeypatch.chdir(SOURCES)
    return tmp_path / "environments"


def test_every_list_of_packages_is_pinned() -> None:
    assert {"jax", "keras", "paddle", "sklearn", "tensorflow", "torch"} == set(environments.names())
    for environment in environments.status():
        assert environment.state == "absent"
        assert all("==" in package for package in environment.packages)


def test_the_state_follows_the_list(_root: Path) -> None:
    (_root / "jax").mkdir(parents=True)
    stamp = _root / "jax" / "onnx-asgnas.json"
    stamp.write_text(json.dumps({"requirements": "jax==0.1"}))
    assert environments.find("jax").state == "outdated"
    with pytest.raises(ConversionError, match="made by another version of onnx-asgnas"):
        environments.require("jax", "jax: needs jax")
    assert environments.remove("jax")
    assert environments.find("jax").state == "absent"
    assert not environments.remove("jax")


def test_a_name_without_a_list() -> None:
    with pytest.raises(PackageError, match=r"there is no environment 'caffe'\nChoose one of: jax, keras"):
        environments.find("caffe")


def test_what_is_listed_is_without_remarks() -> None:
    assert not any("#" in package for package in environments.find("paddle").packages)


class TestCreate:
    """With a list of packages that takes no network; `env create` of the real ones is what `make converters` runs."""

    @pytest.fixture(autouse=True)
    def _lists(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lists = tmp_path / "lists"
        lists.mkdir()
        (lists / "empty.txt").write_text("# nothing\n")
        (lists / "absent.txt").write_text("no-such-package==1.0  # of this name\n")
        monkeypatch.setattr(environments, "_REQUIREMENTS", lists)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setattr(venv, "create", self._pretended)

    @staticmethod
    def _pretended(folder: Path, with_pip: bool) -> None:
        """An environment that runs this one's pip: a real one takes seconds to make."""
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / "bin" / "python").chmod(0o755)

    def test_it_is_ready_then(self, _root: Path) -> None:
        said: list[str] = []
        assert environments.create("empty", said.append).state == "ready"
        assert said[0] == f"making {_root / 'empty'}"
        assert [path.name for path in _root.iterdir()] == ["empty"]

    def test_what_pip_refuses_leaves_its_words_only(self, _root: Path) -> None:
        with pytest.raises(
            PackageError, match=r"No matching distribution found for no-such-package==1.0\n.*absent.log"
        ):
            environments.create("absent")
        assert [path.name for path in _root.iterdir()] == ["absent.log"]

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "file"))
        with pytest.raises(PackageError, match=r"cannot be made in .*file.*\nMake room, or choose another folder"):
            environments.create("empty")

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ("WARNING: Retrying after NewConnectionError\nERROR: No matching distribution", "index cannot be reached"),
            ("ERROR: Could not install: [Errno 28] No space left on device", "no space is left on the device"),
            ("Killed", "pip ended with 137"),
        ],
    )
    def test_the_reason(self, said: str, reason: str) -> None:
        assert reason in environments._reason(said, 137)[0]


def test_a_framework_that_is_not_installed_says_the_command() -> None:
    with pytest.raises(ConversionError, match=r"paddle: needs paddle and paddle2onnx.*\nRun: onnx-asgnas env create"):
        convert_with_report("paddle:folder")


def test_another_process_gives_the_same(tmp_path: Path) -> None:
    source = Source(body="demosupnet?width=1")
    found = isolation.run("onnx_asgnas.converters.networks:convert", source, python=Path(sys.executable))
    assert found.finished
    assert len(found.model.graph.node) > 10


def test_its_errors_come_back(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="Leave --input out"):
        isolation.run(
            "onnx_asgnas.converters.networks:convert",
            Source(body="demosupnet", inputs=(parse_input("x:float32[N]"),)),
            python=None,
        )


def test_one_that_fails_leaves_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with pytest.raises(ConversionError, match=r"KeyError: 'nothing here' *\n.*The full log: "):
        isolation.run("failing_converter:convert", Source(body=""), python=None, log=log)
    assert "Traceback" in log.read_text()


def test_one_that_hangs_is_stopped() -> None:
    with pytest.raises(ConversionError, match=r"not done after 0.5 seconds, and was stopped\nAllow it more"):
        isolation.run("failing_converter:hang", Source(body=""), python=None, time_limit=0.5)


def test_the_working_directory_may_be_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx_asgnas").mkdir()
    (tmp_path / "onnx_asgnas" / "__init__.py").touch()  # as there: the package without its converters
    monkeypatch.chdir(tmp_path)
    source = Source(body="demosupnet?width=1")
    assert isolation.run("onnx_asgnas.converters.networks:convert", source, python=Path(sys.executable)).finished
