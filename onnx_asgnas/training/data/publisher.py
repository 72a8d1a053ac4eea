"""Files as their publishers ship them: found in a folder or its archive, and checked by size and checksum."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_asgnas.errors import DataError

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """Some files that belong together. `files` maps their names to their MD5, "" where the publisher names none.

    `folder` is what the archive unpacks to, and may be left out. Publishers give MD5 sums, so those are checked; they
    tell damage, not malice.
    """

    name: str
    page: str
    files: Mapping[str, str]
    folder: str = ""
    archive: str = ""
    archive_md5: str = ""

    def is_in(self, place: Path) -> bool:
        """Is any of the files there, or the archive."""
        return any(self._path(place, name) for name in self.files) or self._archive(place) is not None

    def read(self, place: Path) -> dict[str, bytes]:
        """The content of all files by name; raises DataError when one is missing, damaged, or not the published one."""
        archive = self._archive(place)
        if archive is not None and not any(self._path(place, name) for name in self.files):
            return self._unpack(archive)
        found = {}
        for name, md5 in self.files.items():
            path = self._path(place, name)
            if path is None:
                raise self.missing(place, name)
            try:
                found[name] = path.read_bytes()
            except OSError as problem:
                raise DataError(f"{path} cannot be read: {problem.strerror}", fix="Check it.", path=str(path)) from None
            require_md5(hashlib.md5(found[name], usedforsecurity=False).hexdigest(), md5, path)
        return found

    def missing(self, place: Path, name: str) -> DataError:
        """What to say of a file that is not there."""
        what = f"{self.archive}, or what it unpacks to ({self.folder}/)," if self.archive else ", ".join(self.files)
        return DataError(
            f"{place / self.folder / name} is missing",
            fix=f"Fetch {what} from {self.page} into a folder, and give {self.name}:FOLDER.",
            path=str(place),
        )

    def _path(self, place: Path, name: str) -> Path | None:
        return next((path for path in (place / self.folder / name, place / name) if path.is_file()), None)

    def _archive(self, place: Path) -> Path | None:
        paths = (place, place / self.archive) if self.archive else ()
        return next((path for path in paths if path.is_file() and path.name == self.archive), None)

    def _unpack(self, archive: Path) -> dict[str, bytes]:
        require_md5(md5_of(archive), self.archive_md5, archive)
        found = {}
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = Path(member.name).name
                    stream = tar.extractfile(member) if name in self.files else None
                    if stream is not None:
                        found[name] = stream.read()
        except (OSError, EOFError, tarfile.TarError, zlib.error) as problem:
            raise DataError(
                f"{archive} cannot be unpacked: {problem}", fix="Fetch it anew.", path=str(archive)
            ) from None
        missing = next((name for name in self.files if name not in found), None)
        if missing is not None:
            raise DataError(f"{archive} holds no {missing}", fix="Fetch it anew.", path=str(archive))
        return found


def md5_of(path: Path) -> str:
    """The MD5 of a file, read in pieces."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def require_md5(found: str, published: str, path: Path) -> None:
    """Raise DataError where a checksum is not the published one."""
    if published and found != published:
        raise DataError(
            f"{path} differs from the published file (MD5 {found}, published {published})",
            fix="It may be cut short: fetch it anew. Other images can be given as npz:FILE or folder:DIR.",
            path=str(path),
        )


def require_size(content: bytes, size: int, name: str) -> None:
    """Raise DataError where a file has not as many bytes as it should have."""
    if len(content) != size:
        raise DataError(f"{name} holds {len(content):,} bytes, the published file {size:,}", fix="Fetch it anew.")


def folder_of(location: str, name: str) -> Path:
    """The folder that the user named; raises DataError where none was."""
    if not location:
        raise DataError(f"{name} names no folder", fix=f"Write {name}:FOLDER; docs/data.md says what it should hold.")
    return Path(location).expanduser()
