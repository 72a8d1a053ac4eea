"""Checkpoints: written whole or not at all, verified when read, the last two kept."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from onnx_asgnas.errors import OutputError, RunDirectoryError

logger = logging.getLogger(__name__)

_KEPT = 2
_UNFINISHED = ".unfinished"
_PIECE = 2**20


class Checkpoints:
    """The checkpoints of one run: what torch.save wrote, one file per step, with its SHA-256 digest in the name."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def files(self) -> list[Path]:
        """The checkpoint files, the newest last."""
        return sorted(self._folder.glob("step-*.ckpt"))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Keep a state; older ones than the last two go when this one is safely on disk.

        The state goes to the disk piece by piece, so no second copy of it is made. Raises OutputError where it cannot
        be written; those before are untouched then.
        """
        temporary = self._folder / _UNFINISHED  # what a killed process left there is written over
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                digest = _write(state, file)
            path = self._folder / f"step-{step:09d}-{digest}.ckpt"
            os.replace(temporary, path)
            _sync_folder(self._folder)
        except OSError as error:
            raise OutputError(
                f"the checkpoint of step {step} cannot be written to {self._folder}: {error.strerror or error}",
                fix="Free some space, then go on with --resume; the checkpoint before is intact.",
                path=str(self._folder),
                step=step,
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        files = [file for file in self.files() if file != path]
        earlier = [file for file in files if file.name < f"step-{step:09d}"]
        for old in {*files} - {*earlier[1 - _KEPT :]}:  # what lies ahead was passed over, being damaged
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is whole; None where nothing was saved. A damaged file is passed over and said.

        Raises RunDirectoryError when files are there and all of them are damaged.
        """
        files = self.files()
        for path in reversed(files):
            if _is_whole(path):
                state: dict[str, Any] = torch.load(path, weights_only=True)
                return state
            logger.warning("checkpoint %s is damaged; the one before is used", path.name)
        if files:
            raise RunDirectoryError(
                f"every checkpoint in {self._folder} is damaged", fix="Start the run anew.", path=str(self._folder)
            )
        return None


class _Hashed:
    """A file to write that hashes what goes through.

    torch's writer must not see an exception, since it goes on writing when it is destroyed: the first one is kept.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.failure is None:
            try:
                self._file.write(data)
                self.digest.update(data)
            except OSError as error:
                self.failure = error
        return len(data)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._file.flush()
            except OSError as error:
                self.failure = error


def _write(state: dict[str, Any], file: BinaryIO) -> str:
    """Write a state to the disk; its digest."""
    hashed = _Hashed(file)
    torch.save(state, hashed)  # type: ignore[arg-type]
    hashed.flush()
    if hashed.failure is not None:
        with contextlib.suppress(OSError):
            file.close()  # tries once more to write what is left
        raise hashed.failure
    os.fsync(file.fileno())
    return hashed.digest.hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether a file holds what its name says; one that another process took away in the meantime does not."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return False
    return path.stem.endswith(f"-{digest.hexdigest()}")


def _sync_folder(folder: Path) -> None:
    """Make a rename last; only POSIX systems let a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
