"""What a user installs: the wheel's content, and files that must agree with one another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict[str, Any]:
    return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel built from a copy of the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        if (checkout / name).exists():
            shutil.copy(checkout / name, copy)
    for name in ("onnx_asgnas", "converters", "models"):
        shutil.copytree(checkout / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(copy / done.stdout.split()[-1]) as file:
        return set(file.namelist())


def test_the_list_of_packages_is_complete(checkout: Path, project: dict[str, Any]) -> None:
    found = {
        ".".join(path.parent.relative_to(checkout).parts) for path in (checkout / "onnx_asgnas").rglob("__init__.py")
    }
    for folder in ("converters", "models"):
        paths = (checkout / folder).rglob("__init__.py")
        found |= {".".join(["onnx_asgnas", *path.parent.relative_to(checkout).parts]) for path in paths}
    assert found <= set(project["tool"]["setuptools"]["packages"])


def test_the_wheel_holds_every_module(checkout: Path, wheel: set[str]) -> None:
    expected = {str(path.relative_to(checkout)) for path in (checkout / "onnx_asgnas").rglob("*.py")}
    for folder in ("converters", "models"):
        expected |= {f"onnx_asgnas/{path.relative_to(checkout)}" for path in (checkout / folder).rglob("*.py")}
    assert {name for name in wheel if name.endswith(".py")} == expected


def test_the_wheel_holds_data_types_and_licences(wheel: set[str]) -> None:
    data = "onnx_asgnas/training/data"
    assert {"onnx_asgnas/py.typed", f"{data}/fashion_mnist_mini.npz", f"{data}/FASHION-MNIST-LICENSE.txt"} <= wheel
    licences = {name.partition("/licenses/")[2] for name in wheel if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", f"{data}/FASHION-MNIST-LICENSE.txt"}


def test_the_wheel_holds_nothing_else_at_its_top(wheel: set[str]) -> None:
    assert {re.sub(r"-.*\.dist-info", ".dist-info", name.partition("/")[0]) for name in wheel} == {
        "onnx_asgnas",
        "onnx_asgnas.dist-info",
    }


def test_embedded_data_is_under_4_MB(checkout: Path) -> None:
    assert (checkout / "onnx_asgnas/training/data/fashion_mnist_mini.npz").stat().st_size < 4_000_000


def test_every_requirement_is_pinned_once_per_python(checkout: Path, project: dict[str, Any]) -> None:
    lines = (checkout / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    extras = project["project"]["optional-dependencies"]
    wanted = [Requirement(text) for text in (*project["project"]["dependencies"], *extras["cpu"], *extras["dev"])]
    for version in ("3.10", "3.11", "3.12"):
        active = [p for p in pins if p.marker is None or p.marker.evaluate({"python_version": version})]
        pinned = {_canonical(p.name): next(iter(p.specifier)).version for p in active}
        assert len(pinned) == len(active)
        for want in wanted:
            assert want.specifier.contains(pinned[_canonical(want.name)]), f"{want} on Python {version}"


def test_constraints_name_no_local_builds(checkout: Path) -> None:
    text = (checkout / "constraints.txt").read_text(encoding="utf-8")
    assert "+cpu" not in text
    assert "://" not in text


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
