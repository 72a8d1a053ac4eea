"""Which image files there are, by class: of a folder of folders, or of a tar of them; kept on disk for the next run."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.errors import DataError
from onnx_asgnas.training.decoding.jobs import Place

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageIndex(Sequence[Place]):
    """The images of one part of a data set, sorted by class and name, as arrays: there may be millions.

    `names` are paths in a folder, or names in an archive, with `offsets` and `lengths` of their bytes in it.
    """

    root: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: NDArray[np.str_]
    offsets: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int) -> Place:  # type: ignore[override]
        name = str(self.names[at])
        if self.offsets is None or self.lengths is None:
            path = os.path.join(self.root, name)
            return Place(path, path)
        return Place(self.root, f"{name} in {self.root}", int(self.offsets[at]), int(self.lengths[at]))


def index_folder(root: Path) -> ImageIndex:
    """Every visible file of the folders in a folder, which are the classes in the order of their names.

    Raises DataError where there is no class, or one without an image.
    """
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root} has no folder for each class", fix="Put the images into DIR/<class>/.", path=str(root))
    return _remembered(root, _state_of(root, folders), lambda: _list_folder(root, folders))


def index_tar_of_tars(archive: Path) -> ImageIndex:
    """Every image of an archive that holds one archive for each class, as ImageNet's training images come."""
    return _remembered(archive, _state_of(archive, ()), lambda: _list_tar_of_tars(archive))


def index_tar(archive: Path, labels: NDArray[np.int64], classes: tuple[str, ...]) -> ImageIndex:
    """Every image of an archive, whose labels are given in the order of the names.

    Raises DataError where there are not as many images as labels.
    """
    found = _remembered(archive, _state_of(archive, ()), lambda: _list_tar(archive))
    if len(found) != len(labels):
        raise DataError(
            f"{archive} holds {len(found):,} images, and there are {len(labels):,} labels",
            fix="Fetch it anew.",
            path=str(archive),
        )
    return ImageIndex(
        root=found.root,
        classes=classes,
        labels=labels,
        names=found.names,
        offsets=found.offsets,
        lengths=found.lengths,
    )


def _folders(root: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as problem:
        raise DataError(
            f"{root} cannot be read: {problem.strerror}", fix="Give a folder with one folder for each class."
        ) from None


def _list_folder(root: Path, folders: Sequence[str]) -> ImageIndex:
    names: list[str] = []
    counts = []
    for folder in folders:
        files = sorted(e.name for e in os.scandir(root / folder) if e.is_file() and not e.name.startswith("."))
        if not files:
            raise DataError(f"{root / folder} holds no image", fix="Remove the folder, or put some in.")
        names += [f"{folder}/{file}" for file in files]
        counts.append(len(files))
    return ImageIndex(
        root=str(root),
        classes=tuple(folders),
        labels=np.repeat(np.arange(len(folders)), counts),
        names=np.array(names),
    )


def _list_tar_of_tars(archive: Path) -> ImageIndex:
    """An image lies in the outer file as it is, so its place there is all that is needed to read it."""
    rows: list[tuple[str, str, int, int]] = []
    with _opened(archive) as outer:
        for member in _files(outer, archive):
            stream = outer.extractfile(member)
            assert stream is not None
            name = Path(member.name).stem
            with _opened(archive, stream) as inner:
                rows += [
                    (name, f"{name}/{image.name}", member.offset_data + image.offset_data, image.size)
                    for image in _files(inner, archive)
                ]
    return _of_rows(archive, rows)


def _list_tar(archive: Path) -> ImageIndex:
    with _opened(archive) as tar:
        return _of_rows(
            archive, [("", member.name, member.offset_data, member.size) for member in _files(tar, archive)]
        )


def _of_rows(archive: Path, rows: list[tuple[str, str, int, int]]) -> ImageIndex:
    if not rows:
        raise DataError(f"{archive} holds no image", fix="Fetch it anew.", path=str(archive))
    rows.sort()
    classes = sorted({row[0] for row in rows})
    number = {name: at for at, name in enumerate(classes)}
    return ImageIndex(
        root=str(archive),
        classes=tuple(classes),
        labels=np.array([number[row[0]] for row in rows]),
        names=np.array([row[1] for row in rows]),
        offsets=np.array([row[2] for row in rows]),
        lengths=np.array([row[3] for row in rows]),
    )


def _opened(archive: Path, inside: IO[bytes] | None = None) -> tarfile.TarFile:
    """An archive, or one that lies in it."""
    try:
        return tarfile.open(archive if inside is None else None, mode="r:", fileobj=inside)
    except (OSError, tarfile.TarError) as problem:
        raise DataError(f"{archive} cannot be unpacked: {problem}", fix="Fetch it anew.", path=str(archive)) from None


def _files(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    try:
        yield from (member for member in tar if member.isfile())
    except (OSError, tarfile.TarError) as problem:
        raise DataError(f"{archive} is cut short: {problem}", fix="Fetch it anew.", path=str(archive)) from None


def _state_of(path: Path, folders: Iterable[str]) -> str:
    """What changes when files come or go: sizes and times of the archive, or of the folders."""
    digest = hashlib.sha256(f"{_FORMAT} {path.resolve()}".encode())
    for part in (path, *(path / folder for folder in folders)):
        found = part.stat()
        digest.update(f"\n{part.name} {found.st_mtime_ns} {found.st_size if part.is_file() else 0}".encode())
    return digest.hexdigest()[:32]


def _remembered(path: Path, state: str, make: Callable[[], ImageIndex]) -> ImageIndex:
    """The index of an earlier run where nothing has changed since, else a new one."""
    kept = _cache() / f"{state}.npz"
    found = _load(kept, path)
    if found is None:
        found = make()
        _keep(kept, found)
    return found


def _cache() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "onnx-asgnas" / "images"


def _load(kept: Path, path: Path) -> ImageIndex | None:
    try:
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as content:
            places = {name: content[name] for name in ("offsets", "lengths") if name in content.files}
            return ImageIndex(
                root=str(path),
                classes=tuple(content["classes"].tolist()),
                labels=content["labels"],
                names=content["names"],
                **places,
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(kept: Path, index: ImageIndex) -> None:
    """Write it whole or not at all; a cache that cannot be written only costs time."""
    arrays = {"classes": np.array(index.classes), "labels": index.labels, "names": index.names}
    arrays |= {k: v for k, v in (("offsets", index.offsets), ("lengths", index.lengths)) if v is not None}
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(file.name, kept)
    except OSError:
        return
