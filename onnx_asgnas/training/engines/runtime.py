"""onnxruntime, imported so that nothing else changes, and checked to be the one that trains."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from types import ModuleType

import torch
import torch.utils.checkpoint

from onnx_asgnas.errors import PackageError

TRAINING_PACKAGES = ("onnxruntime-training-cpu", "onnxruntime-training")
_PROVIDERS = (*TRAINING_PACKAGES, "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def import_onnxruntime() -> ModuleType:
    """The module `onnxruntime`.

    Importing a training build replaces `torch.manual_seed`, `torch.cuda.manual_seed` and the checkpoint function of
    torch for the whole process; they are put back. Raises PackageError where onnxruntime is missing, or where several
    packages that provide it are installed and have overwritten each other's files.
    """
    if "onnxruntime" not in sys.modules:
        _refuse_several()
        replaced = [(torch, "manual_seed"), (torch.cuda, "manual_seed"), (torch.utils.checkpoint, "checkpoint")]
        before = [(module, name, getattr(module, name)) for module, name in replaced]
        try:
            importlib.import_module("onnxruntime")
        except ImportError as error:
            raise PackageError(
                f"onnxruntime cannot be imported: {error}", fix=f"pip install {TRAINING_PACKAGES[0]}"
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
            fix=f"pip uninstall onnxruntime onnxruntime-gpu, then pip install {TRAINING_PACKAGES[0]}",
        )
    return binding


def installed_packages() -> dict[str, str]:
    """The installed packages that provide the module `onnxruntime`, with their versions."""
    found = {}
    for name in _PROVIDERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _refuse_several() -> None:
    found = list(installed_packages())
    if len(found) > 1:
        raise PackageError(
            f"{' and '.join(found)} are installed together; they overwrite each other's files",
            fix=f"pip uninstall -y {' '.join(found)}, then pip install {found[0]}",
            packages=found,
        )
