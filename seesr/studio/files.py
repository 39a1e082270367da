"""The studio's files: what users sent, by its hash, and the finished pictures; each is whole or absent, come what may."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from seesr.files import atomic_write
from seesr.jobs import MEDIA_TYPES, content_hash
from seesr.studio.errors import FullDiskError, NotFoundError
from seesr.studio.records import PictureRecord

INPUTS, OUTPUTS = "inputs", "outputs"
RESERVE = 256_000_000
"""Bytes of the disk that stay free: for the store, and for what else the machine does."""
YOUNG_SECONDS = 3600
"""How long a file stays that no row names: its row comes after it."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_HASH = re.compile("[0-9a-f]{64}")
SUFFIXES = {media_type: suffix for suffix, media_type in MEDIA_TYPES.items()}


class FileStore:
    """Files below a folder: `inputs/<hash>` and `outputs/YYYY-MM-DD/<id>.<suffix>`. Whose they are, the store knows.

    Args:
        root: is made where it lacks.
        reserve: bytes of the disk that stay free.
    """

    def __init__(self, root: Path, reserve: int = RESERVE) -> None:
        self.root, self.reserve = root, reserve
        for folder in (INPUTS, OUTPUTS):
            (root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)

    # What users sent.

    def put_input(self, content: bytes) -> str:
        """Keeps a picture that a user sent.

        Returns:
            Its content hash.

        Raises:
            FullDiskError: there is no room.
        """
        name = content_hash(content)
        path = self._input(name)
        if path.exists():
            os.utime(path)  # not to be collected before its row comes
        else:
            self._write(path, content)
        return name

    def input(self, name: str) -> bytes:
        """The content of what was sent, by its content hash.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            return self._input(name).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"the picture {name} is not there any more; send it again.") from None

    # Finished pictures.

    def put_output(self, id: str, created: datetime, media_type: str, content: bytes) -> Path:
        """Writes the file of a picture whose record is not kept yet.

        Raises:
            FullDiskError: there is no room; no file is left.
        """
        path = self._output(id, created, media_type)
        self._write(path, content)
        return path

    def path(self, picture: PictureRecord) -> Path:
        """Where the file of a picture is."""
        return self._output(picture.id, picture.created, picture.media_type)

    def remove(self, picture: PictureRecord) -> None:
        """Removes the file of a picture; it may be gone already."""
        self.path(picture).unlink(missing_ok=True)

    # Room.

    def collect_garbage(self, inputs: Collection[str], pictures: Collection[str]) -> int:
        """Removes what no row names, such as what a kill left; not what was written within the last hour: its row may come.

        Args:
            inputs: hashes of the inputs that are needed.
            pictures: ids of all finished pictures.

        Returns:
            The number of files that were removed.
        """
        files, old = dict[Path, bool](), time.time() - YOUNG_SECONDS
        for path in (self.root / INPUTS).iterdir():
            files[path] = path.name in inputs
        for path in (self.root / OUTPUTS).glob("*/*"):
            files[path] = path.stem in pictures
        garbage = [path for path, is_needed in files.items() if not is_needed and _modified(path) < old]
        for path in garbage:
            path.unlink(missing_ok=True)
        return len(garbage)

    def free_bytes(self) -> int:
        """Bytes that may still be written."""
        return max(0, shutil.disk_usage(self.root).free - self.reserve)

    def check_room(self, size: int = 1) -> None:
        """Raises FullDiskError if there is no room for `size` bytes more."""
        if (free := self.free_bytes()) < size:
            room = f"{size:,} bytes are needed and {free:,} may be used"
            raise FullDiskError(f"the studio's disk is full ({room}): remove pictures, or give it more room.")

    def _input(self, name: str) -> Path:
        if not _HASH.fullmatch(name):
            raise NotFoundError("a picture that was sent is named by its SHA-256, in 64 hexadecimal digits.")
        return self.root / INPUTS / name

    def _output(self, id: str, created: datetime, media_type: str) -> Path:
        if not id.isalnum():
            raise NotFoundError("a picture is named by its id, in letters and digits.")
        return self.root / OUTPUTS / f"{created:%Y-%m-%d}" / f"{id}.{SUFFIXES[media_type]}"

    def _write(self, path: Path, content: bytes) -> None:
        self.check_room(len(content))
        try:
            with atomic_write(path, mode=0o600) as temporary:
                temporary.write_bytes(content)
            _sync(path.parent)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise FullDiskError("the studio's disk is full: remove pictures, or give it more room.") from error


def _modified(path: Path) -> float:
    """When it was written; a moment to come for one that somebody else has removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _sync(folder: Path) -> None:
    """Makes the names in a folder last, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
