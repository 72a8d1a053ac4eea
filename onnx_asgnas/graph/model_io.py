"""Models in and out: read a path, bytes or a ModelProto, and write a file whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper

from onnx_asgnas.errors import ModelError, OutputError

ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"


def load_model(source: ModelSource) -> onnx.ModelProto:
    """The checked model with all its data in memory; a ModelProto is copied, never shared.

    Raises ModelError when the file is missing, is not ONNX, is cut short, is invalid, or lacks its external data.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        folder, name = None, "the given model"
    elif isinstance(source, bytes):
        model, folder, name = _parse(source, "the given bytes"), None, "the given bytes"
    else:
        path = Path(source)
        name = str(path)
        if path.is_dir():
            raise ModelError(f"{name} is a folder", fix="Give the .onnx file inside it.", path=name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ModelError(f"{name} does not exist", fix="Check the path.", path=name) from None
        except OSError as error:
            raise ModelError(f"{name} cannot be read: {error.strerror}", fix="Check the path.", path=name) from None
        model, folder = _parse(data, name), path.parent
    _load_external_data(model, folder, name)
    _check(model, name)
    return model


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write the model so that `path` holds either the old content or all of the new one."""
    try:
        data = model.SerializeToString()
    except (ValueError, EncodeError):
        raise OutputError(
            f"{path} cannot be written: the model is over 2 GB", fix="Make it smaller first: prune it further."
        ) from None
    write_atomically(Path(path), data)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one in the same folder; raises OutputError where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", fix="Choose a folder that you may write to.", path=str(path)
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "Free some space." if full else "Choose another path."
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix=fix, path=str(path)) from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{name} is not an ONNX file, or is cut short",
            fix="Export or copy it again; `onnx-asgnas convert` makes one from other formats.",
            path=name,
        ) from None
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(
            f"{name} holds no complete ONNX model", fix="It may be cut short: export or copy it again.", path=name
        )
    return model


def _load_external_data(model: onnx.ModelProto, folder: Path | None, name: str) -> None:
    wanted = {
        entry.value
        for tensor in external_data_helper._get_all_tensors(model)
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if not wanted:
        return
    if folder is None:
        raise ModelError(
            f"{name} keeps its weights in other files ({', '.join(sorted(wanted)[:3])})",
            fix="Give the model's path, so that they can be found beside it.",
        )
    missing = sorted(w for w in wanted if not (folder / w).is_file())
    if missing:
        raise ModelError(
            f"{name} needs external data that is missing: {', '.join(missing[:3])}",
            fix=f"Put the file into {folder}.",
            path=name,
        )
    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"the external data of {name} cannot be read: {_first_line(error)}", fix="Copy the files again.", path=name
        ) from None


def _check(model: onnx.ModelProto, name: str) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"{name} is not a valid ONNX model: {_first_line(error)}", fix="Export it again.", path=name
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
