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
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    packages = tuple(line for line in lines if line)
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

    Raises PackageError when the folder cannot be written or pip fails; what pip printed is in a file beside the
    environment. Nothing half made is left.
    """
    wanted = find(name)
    log = wanted.folder.with_suffix(".log")
    try:
        remove(name)
        wanted.folder.parent.mkdir(parents=True, exist_ok=True)
        say(f"making {wanted.folder}")
        venv.create(wanted.folder, with_pip=True)
        say(f"installing {', '.join(wanted.packages)}")
        _install(wanted, log)
        (wanted.folder / _STAMP).write_text(json.dumps({"requirements": _requirements(name)}), encoding="utf-8")
        log.unlink()
    except OSError as problem:
        raise PackageError(
            f"the environment {name!r} cannot be made in {wanted.folder}: {problem.strerror or problem}",
            fix=f"Make room, or choose another folder: ${VARIABLE}.",
        ) from problem
    except subprocess.CalledProcessError as problem:  # Debian has the module that venv needs in a package of its own
        raise PackageError(
            f"the environment {name!r} cannot be made: Python's venv puts no pip into it",
            fix="On Debian and Ubuntu: apt install python3-venv.",
        ) from problem
    finally:
        if find(name).state != "ready":
            shutil.rmtree(wanted.folder, ignore_errors=True)
    return find(name)


def _install(environment: Environment, log: Path) -> None:
    """Run pip on the environment's list; raises PackageError with the reason that it gives."""
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [
                str(environment.python),
                *("-m", "pip", "--disable-pip-version-check", "--no-input", "install"),
                *("-r", str(_REQUIREMENTS / f"{environment.name}.txt")),
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        reason, fix = _reason(log.read_text(encoding="utf-8", errors="replace"), done.returncode)
        raise PackageError(
            f"the environment {environment.name!r} cannot be made: {reason}", fix=f"{fix} What pip said is in {log}."
        )


def _reason(said: str, code: int) -> tuple[str, str]:
    """Why pip failed, and what helps; where it has no network it says of the first package that there is none."""
    if any(sign in said for sign in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError")):
        return "the package index cannot be reached", "Is there a network?"
    if "No space left on device" in said:
        return "no space is left on the device", f"Make room, or choose another folder: ${VARIABLE}."
    lines = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    if sys.version_info < (3, 11):
        fix = f"The lists are for Python 3.11 and newer; this is {sys.version.split()[0]}."
    else:
        fix = "The lists are tried with Python 3.11: is there a wheel for this Python and system?"
    return (lines[-1] if lines else f"pip ended with {code}"), fix


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
