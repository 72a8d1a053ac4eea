"""Models in and out: read a path, bytes or a ModelProto, and write a file whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError

from onnx_asgnas.errors import ModelError, OutputError
from onnx_asgnas.graph.checks import check, check_data, frame_of
from onnx_asgnas.graph.weights import (
    LIMIT,
    Weights,
    bytes_of,
    describe,
    inner_tensors_of,
    is_external,
    refer,
    tensors_of,
)

ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"

_ALIGNMENT = 4096
"""Where a tensor may start in a file of external data, so that it can be mapped into memory."""
_SMALLEST_EXTERNAL = 1024
"""Bytes below which a tensor stays in the model when the others go to a file beside it."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A checked model whose external data may still lie in its files."""

    proto: onnx.ModelProto
    weights: Weights


def load_model(source: ModelSource) -> onnx.ModelProto:
    """The checked model with all its data in memory; a ModelProto is copied, never shared. It may be over 2 GB.

    Raises ModelError when the file is missing, is not ONNX, is cut short, is invalid, or lacks its external data.
    """
    opened = open_model(source)
    if isinstance(source, onnx.ModelProto):
        check_data(source, opened.weights.name)
    elif not any(is_external(tensor) for tensor in opened.proto.graph.initializer):
        return opened.proto
    model = frame_of(opened.proto)
    model.functions.extend(opened.proto.functions)
    model.graph.node.extend(opened.proto.graph.node)
    for tensor in opened.proto.graph.initializer:
        opened.weights.into(model.graph.initializer.add(), tensor, tensor.name)
    return model


def open_model(source: ModelSource) -> OpenModel:
    """The checked model, with external data left in its files, and a ModelProto as it is: neither may be changed."""
    if isinstance(source, onnx.ModelProto):
        model, weights = source, Weights()
    elif isinstance(source, bytes):
        weights = Weights(name="the given bytes")
        model = _parse(source, weights.name)
    else:
        weights = Weights(Path(source).parent, str(source))
        model = _parse(_read(Path(source)), weights.name)
    weights.check(tensors_of(model.graph))
    if not isinstance(source, onnx.ModelProto):
        _load_inner(model, weights)
        check_data(model, weights.name)
    check(model, weights.name)
    return OpenModel(model, weights)


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str], *, external_data: bool = False) -> None:
    """Write the model so that `path` holds either the old content or all of the new one.

    With `external_data`, and always where the model is too large for one message, the weights go to a file beside it.
    That has a name by its content, so that the old model keeps its weights until the new one is in its place.
    """
    path = Path(path)
    outdated = _own_data_files(path)
    if not external_data and sum(map(bytes_of, tensors_of(model.graph))) < LIMIT:
        try:
            write_atomically(path, model.SerializeToString())
        except (ValueError, EncodeError) as error:
            raise OutputError(f"{path} cannot be written: {error}", fix="Save it with external data.") from None
    else:
        large = [t for t in model.graph.initializer if bytes_of(t) >= _SMALLEST_EXTERNAL and t.data_type != t.STRING]
        name = _write_data(path, large)
        write_atomically(path, _with_external(model, {t.name for t in large}, name).SerializeToString())
        outdated.discard(path.parent / name)
    for file in outdated:
        file.unlink(missing_ok=True)


def has_external_data(path: str | os.PathLike[str]) -> bool:
    """Does the model at this path keep weights in other files."""
    return any(is_external(tensor) for tensor in tensors_of(_parse(_read(Path(path)), str(path)).graph))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one in the same folder; raises OutputError where that is not possible."""
    _write_parts(path, [data])


def _write_parts(path: Path, parts: Iterable[bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", fix="Choose a folder that you may write to.", path=str(path)
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
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


def _write_data(path: Path, tensors: Iterable[onnx.TensorProto]) -> str:
    """Write the values of these tensors one after another; the name of the file, which its content decides."""
    tensors = list(tensors)
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(_raw(tensor))
    name = f"{path.name}.{digest.hexdigest()[:12]}.data"
    if not (path.parent / name).is_file():
        _write_parts(path.parent / name, (_raw(t) + bytes(-bytes_of(t) % _ALIGNMENT) for t in tensors))
    return name


def _with_external(model: onnx.ModelProto, names: set[str], location: str) -> onnx.ModelProto:
    """The model with the data of these initializers left out, and its place in the file in their stead."""
    result = frame_of(model)
    result.functions.extend(model.functions)
    result.graph.node.extend(model.graph.node)
    offset = 0
    for tensor in model.graph.initializer:
        target = result.graph.initializer.add()
        if tensor.name not in names:
            target.CopyFrom(tensor)
            continue
        length = bytes_of(tensor)
        describe(target, tensor)
        refer(target, location=location, offset=offset, length=length)
        offset += length + -length % _ALIGNMENT
    return result


def _own_data_files(path: Path) -> set[Path]:
    """The files of external data that an earlier save has put beside the model, and that only it reads."""
    ours = re.compile(re.escape(path.name) + r"\.[0-9a-f]{12}\.data")
    if not path.parent.is_dir():
        return set()
    return {file for file in path.parent.iterdir() if ours.fullmatch(file.name)}


def _raw(tensor: onnx.TensorProto) -> bytes:
    """The values of a tensor as they lie in a file: little-endian, several small ones to a byte."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    values = onnx.numpy_helper.to_array(tensor)
    return bytes(onnx.numpy_helper.from_array(values).raw_data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(path: Path) -> bytes:
    name = str(path)
    if path.is_dir():
        raise ModelError(f"{name} is a folder", fix="Give the .onnx file inside it.", path=name)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        source = re.match(r"[a-z_]{2,}:", name)  # a drive has one letter
        fix = f"onnx-asgnas convert {name} -o MODEL.onnx makes a file of it." if source else "Check the path."
        raise ModelError(f"{name} does not exist", fix=fix, path=name) from None
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror}", fix="Check the path.", path=name) from None


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


def _load_inner(model: onnx.ModelProto, weights: Weights) -> None:
    """Bring the external data of attributes and subgraphs into memory: there, it is never large."""
    for tensor in inner_tensors_of(model.graph):
        if is_external(tensor):
            loaded = onnx.TensorProto()
            weights.into(loaded, tensor, tensor.name)
            tensor.CopyFrom(loaded)
