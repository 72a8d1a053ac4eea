"""Environments of their own for converters whose packages disagree with this one's.

`jax2onnx` asks for the plain onnxruntime, whose files overwrite the training runtime's; other exporters pin old
versions of ONNX. So each such framework has a list of pinned packages in `requirements/`, and `create` makes a virtual
environment from it when the user asks for it, never otherwise. What runs there is `worker.py`, on the files of this
installation.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnx_asgnas.errors import ConversionError, PackageError

VARIABLE = "ONNX_ASGNAS_ENVIRONMENTS"
"""Environment variable with the folder that the environments lie in."""

_REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = "onnx-asgnas.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """One environment: `state` is "ready", "outdated" (made from another list of packages) or "absent"."""

    name: str
    folder: Path
    state: str
    packages: tuple[str, ...]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def names() -> tuple[str, ...]:
    """The environments that this package has a list of requirements for."""
    return tuple(sorted(path.stem for path in _REQUIREMENTS.glob("*.txt")))


def root() -> Path:
    """The folder of all environments: $ONNX_ASGNAS_ENVIRONMENTS, else one in the user's data folder."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "onnx-asgnas" / "environments"


def find(name: str) -> Environment:
    """The environment of this name, whether it is there or not; raises PackageError for a name that has no list."""
    if name not in names():
        raise PackageError(f"there is no environment {name!r}", fix=f"Choose one of: {', '.join(names())}.")
    folder = root() / name
    text = _requirements(name)
    packages = tuple(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    stamp = folder / _STAMP
    state = "absent"
    if stamp.is_file():
        made = json.loads(stamp.read_text(encoding="utf-8"))
        state = "ready" if made == {"requirements": text} else "outdated"
    return Environment(name=name, folder=folder, state=state, packages=packages)


def status() -> tuple[Environment, ...]:
    """All of them, by name."""
    return tuple(find(name) for name in names())


def create(name: str, say: Callable[[str], None] = lambda line: None) -> Environment:
    """Make the environment with pip, or make it anew; `say` is told each step.

    Raises PackageError when pip fails; what it printed is in a file beside the environment.
    """
    wanted = find(name)
    remove(name)
    wanted.folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"making {wanted.folder}")
    venv.create(wanted.folder, with_pip=True)
    say(f"installing {', '.join(wanted.packages)}")
    log = wanted.folder.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [
                str(wanted.python),
                *("-m", "pip", "--disable-pip-version-check", "--no-input", "install"),
                *("-r", str(_REQUIREMENTS / f"{name}.txt")),
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        shutil.rmtree(wanted.folder)
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {done.returncode}"
        raise PackageError(
            f"the environment {name!r} cannot be made: {reason}",
            fix=f"What pip said is in {log}. The lists are for Python 3.11; this is {sys.version.split()[0]}.",
        )
    log.unlink()
    (wanted.folder / _STAMP).write_text(json.dumps({"requirements": _requirements(name)}), encoding="utf-8")
    return find(name)


def remove(name: str) -> bool:
    """Delete the environment; whether there was one."""
    found = find(name)
    if not found.folder.exists():
        return False
    shutil.rmtree(found.folder)
    return True


def require(name: str, what: str) -> Environment:
    """The environment, ready to run; raises ConversionError with the command that makes it."""
    found = find(name)
    command = f"onnx-asgnas env create {name}"
    if found.state == "absent":
        raise ConversionError(f"{what}, which are not installed here", fix=f"Run: {command}", environment=name)
    if found.state == "outdated":
        raise ConversionError(
            f"the environment {name!r} was made by another version of onnx-asgnas",
            fix=f"Run: {command}",
            environment=name,
        )
    return found


def _requirements(name: str) -> str:
    return (_REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
