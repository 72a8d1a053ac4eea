"""Which onnxruntime is installed, and importing it so that nothing else changes.

Several packages provide the module `onnxruntime`. Installed together they overwrite each other's files, and whichever
came last wins, silently; so that is looked for, and said.
"""

from __future__ import annotations

import importlib
import platform
import sys
from importlib import metadata
from types import ModuleType

from onnx_asgnas.errors import PackageError

TRAINING_RUNTIMES = ("onnxruntime-training-cpu", "onnxruntime-training")
RUNTIMES = (*TRAINING_RUNTIMES, "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def installed_runtimes() -> dict[str, str]:
    """The installed packages that provide the module `onnxruntime`, with their versions."""
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def trains_here() -> bool:
    """Are there wheels of onnxruntime-training for this system: Linux on x86-64, up to Python 3.12."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64") and sys.version_info < (3, 13)


def fitting_runtime() -> str:
    """The package to install where none is: one that trains, or where there is no such wheel the plain one."""
    return TRAINING_RUNTIMES[0] if trains_here() else "onnxruntime"


def runtime_problem() -> PackageError | None:
    """What is wrong with the onnxruntime packages, with the command that mends it; None where there is exactly one."""
    found = list(installed_runtimes())
    if not found:
        return PackageError("onnxruntime is not installed", fix=f"pip install {fitting_runtime()}")
    if len(found) == 1:
        return None
    return PackageError(
        f"{' and '.join(found)} are installed together; they overwrite each other's files",
        fix=f"pip uninstall -y {' '.join(found)}, then pip install {found[0]}",
        packages=found,
    )


def import_onnxruntime() -> ModuleType:
    """The module `onnxruntime`.

    Importing a training build imports torch and replaces some of its functions (`manual_seed`, the checkpoint function)
    for the whole process; they are put back. Raises PackageError where onnxruntime is missing, or where several
    packages that provide it are installed.
    """
    if "onnxruntime" not in sys.modules:
        problem = runtime_problem()
        if problem is not None:
            raise problem
        before = _patched_by_training_builds()
        try:
            importlib.import_module("onnxruntime")
        except ImportError as error:
            raise PackageError(
                f"onnxruntime cannot be imported: {error}", fix=f"pip install --force-reinstall {fitting_runtime()}"
            ) from None
        finally:
            for module, name, original in before:
                setattr(module, name, original)
    return sys.modules["onnxruntime"]


def can_train() -> bool:
    """Is the installed onnxruntime one that computes gradients."""
    try:
        return hasattr(import_onnxruntime().capi._pybind_state, "TrainingAgent")
    except PackageError:
        return False


def import_training_runtime() -> ModuleType:
    """The binding module of an onnxruntime that computes gradients; raises PackageError where there is none."""
    binding: ModuleType = import_onnxruntime().capi._pybind_state
    if not hasattr(binding, "TrainingAgent"):
        raise PackageError(
            "the installed onnxruntime runs networks but does not train them",
            fix=f"Use engine torch; or pip uninstall onnxruntime onnxruntime-gpu, then pip install "
            f"{TRAINING_RUNTIMES[0]}."
            if trains_here()
            else "Use engine torch.",
        )
    return binding


def _patched_by_training_builds() -> list[tuple[ModuleType, str, object]]:
    """What a training build replaces in torch, as it was; nothing where no training build or no torch is installed."""
    if not any(name in installed_runtimes() for name in TRAINING_RUNTIMES):
        return []
    try:
        checkpoint = importlib.import_module("torch.utils.checkpoint")
        torch = importlib.import_module("torch")
    except ImportError:
        return []
    places = [(torch, "manual_seed"), (torch.cuda, "manual_seed"), (checkpoint, "checkpoint")]
    return [(module, name, getattr(module, name)) for module, name in places]
