"""The studio's files: what users sent, by its hash, and the finished pictures; each whole or absent, whenever the power fails."""

from __future__ import annotations

import errno
import hashlib
import os
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
UNUSED_SECONDS = 86_400
"""How long an input stays that no job names."""
FULL = (errno.ENOSPC, errno.EDQUOT)
SUFFIXES = {media_type: suffix for suffix, media_type in MEDIA_TYPES.items()}


class FileStore:
    """Files below a folder: `inputs/<user>/<hash>` and `outputs/YYYY-MM-DD/<id>.<suffix>`.

    A user's folder is named after a hash, so that no name is ever joined to a path. What two users send is kept for each:
    nobody can use, or find out about, what another one sent.

    Args:
        root: is made where it lacks.
        reserve: bytes of the disk that stay free.
    """

    def __init__(self, root: Path, reserve: int = RESERVE) -> None:
        self.root, self.reserve = root, reserve
        for folder in (INPUTS, OUTPUTS):
            (root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)

    # What users sent.

    def put_input(self, user: str, content: bytes) -> str:
        """Keeps a picture that a user sent.

        Returns:
            Its content hash.

        Raises:
            FullDiskError: there is no room.
        """
        name = content_hash(content)
        path = self._input(user, name)
        if path.exists():
            os.utime(path)  # not to be collected before the job that comes now
        else:
            self._write(path, content)
        return name

    def input(self, user: str, name: str) -> bytes:
        """The content of what a user sent.

        Raises:
            NotFoundError: this user sent nothing of this hash.
        """
        try:
            return self._input(user, name).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"there is no input {name}; send it again.") from None

    def has_input(self, user: str, name: str) -> bool:
        """Whether this user sent it, and it is still there."""
        return self._input(user, name).exists()

    def keep_input(self, user: str, name: str) -> bool:
        """Whether it is there; if so, it stays for another day."""
        try:
            os.utime(self._input(user, name))
        except FileNotFoundError:
            return False
        return True

    def remove_inputs_of(self, user: str) -> None:
        """Removes all that a user sent."""
        shutil.rmtree(self._folder_of(user), ignore_errors=True)

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

    def collect_garbage(self, used: Collection[str], pictures: Collection[str] | None = None) -> int:
        """Removes inputs that no job names and nobody touched for a day, and what a kill left of files.

        Args:
            used: hashes of the inputs that jobs name.
            pictures: ids of all finished pictures; files of others are removed. None leaves the pictures alone.

        Returns:
            The number of files that were removed.
        """
        removed, unused = 0, time.time() - UNUSED_SECONDS
        for path in [*(self.root / INPUTS).glob("*/*"), *(self.root / OUTPUTS).glob("*/*")]:
            if path.name.startswith("."):  # of `atomic_write`
                is_garbage = path.stat().st_mtime < unused
            elif path.parent.parent.name == INPUTS:
                is_garbage = path.name not in used and path.stat().st_mtime < unused
            else:
                is_garbage = pictures is not None and path.stem not in pictures
            if is_garbage:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def free_bytes(self) -> int:
        """Bytes that may still be written."""
        return max(0, shutil.disk_usage(self.root).free - self.reserve)

    def check_room(self, size: int = 1) -> None:
        """Raises FullDiskError if there is no room for `size` bytes more."""
        if (free := self.free_bytes()) < size:
            room = f"{size:,} bytes are needed and {free:,} may be used"
            raise FullDiskError(f"the studio's disk is full ({room}): remove pictures, or give it more room.")

    def _folder_of(self, user: str) -> Path:
        return self.root / INPUTS / hashlib.sha256(user.encode()).hexdigest()[:32]

    def _input(self, user: str, name: str) -> Path:
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise NotFoundError("an input is named by its SHA-256, in 64 hexadecimal digits.")
        return self._folder_of(user) / name

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


def _sync(folder: Path) -> None:
    """Makes the names in a folder last, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
