"""Checkpoints: written whole or not at all, verified when read, the last two kept."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from onnx_asgnas.errors import RunDirectoryError
from onnx_asgnas.graph import write_atomically

logger = logging.getLogger(__name__)

_DIGEST = hashlib.sha256().digest_size
_KEPT = 2


class Checkpoints:
    """The checkpoints of one run, one file per step: a SHA-256 digest, then what torch.save wrote."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def files(self) -> list[Path]:
        """The checkpoint files, the newest last."""
        return sorted(self._folder.glob("step-*.ckpt"))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Keep a state; older ones than the last two go when this one is safely on disk."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        write_atomically(self._folder / f"step-{step:09d}.ckpt", hashlib.sha256(data).digest() + data)
        for path in self.files()[:-_KEPT]:
            path.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is whole; None where nothing was saved. A damaged file is passed over and said.

        Raises RunDirectoryError when files are there and all of them are damaged.
        """
        files = self.files()
        for path in reversed(files):
            data = path.read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                state: dict[str, Any] = torch.load(io.BytesIO(data[_DIGEST:]), weights_only=True)
                return state
            logger.warning("checkpoint %s is damaged; the one before is used", path.name)
        if files:
            raise RunDirectoryError(
                f"every checkpoint in {self._folder} is damaged", fix="Start the run anew.", path=str(self._folder)
            )
        return None
