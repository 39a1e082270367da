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
from seesr.studio.bucket import Bucket, is_url
from seesr.studio.errors import FullDiskError, NotFoundError
from seesr.studio.records import PictureRecord
from seesr.studio.thumbnails import make_thumbnail

INPUTS, OUTPUTS, THUMBNAILS, FETCHED = "inputs", "outputs", "thumbnails", "fetched"
FETCHED_BYTES = 2_000_000_000
"""Of the files that are fetched from a URL, what stays for the next time; those not asked for longest are removed first."""
RECENT_SECONDS = 600
"""How long a fetched file stays at least: an answer may be on its way."""
RESERVE = 256_000_000
"""Bytes of the disk that stay free: for the store, and for what else the machine does."""
YOUNG_SECONDS = 3600
"""How long a file stays that no row names: its row comes after it."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_HASH = re.compile("[0-9a-f]{64}")
SUFFIXES = {media_type: suffix for suffix, media_type in MEDIA_TYPES.items()}


class FileStore:
    """Files below a folder: `inputs/<hash>`, `outputs/YYYY-MM-DD/<id>.<suffix>`, and thumbnails likewise.

    Whose they are, the store knows.

    Args:
        root: is made where it lacks.
        reserve: bytes of the disk that stay free.
        outputs: a folder in place of `outputs`, or any URL of fsspec's, such as `s3://bucket/folder`. This studio alone may
            use it; what no row names is not removed there.

    Raises:
        StudioError: the URL cannot be used.
    """

    def __init__(self, root: Path, reserve: int = RESERVE, outputs: str | None = None) -> None:
        self.root, self.reserve = root, reserve
        self._bucket = Bucket(outputs) if outputs is not None and is_url(outputs) else None
        folder = FETCHED if self._bucket else outputs or OUTPUTS
        self._outputs = root / folder.removeprefix("file://")
        for place in (root / INPUTS, self._outputs):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)

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
        if not _touch(path):  # what is there is not collected before its row comes
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

    def put_output(self, id: str, created: datetime, media_type: str, content: bytes) -> None:
        """Writes the file of a picture whose record is not kept yet.

        Raises:
            FullDiskError: there is no room; no file is left.
            StorageError: the storage does not answer.
        """
        name = _output(id, created, media_type)
        if self._bucket:
            self._bucket.write(name, content)
        else:
            self._write(self._outputs / name, content)

    def path(self, picture: PictureRecord) -> Path:
        """Where the file of a picture is, which is fetched first where it is at a URL; no file is there if it is gone.

        Raises:
            StorageError: the storage does not answer.
        """
        name = _output(picture.id, picture.created, picture.media_type)
        path = self._outputs / name
        if self._bucket and not _touch(path) and (content := self._bucket.read(name)) is not None:
            self._forget_fetched(FETCHED_BYTES - len(content))
            self._write(path, content)
        return path

    def thumbnail(self, picture: PictureRecord) -> Path:
        """Where the small WebP of a picture is, which is made when it is asked for the first time.

        Raises:
            NotFoundError: the picture's file is gone.
            InputError: it is damaged.
            FullDiskError, StorageError: as above.
        """
        path = self._thumbnail(picture)
        if not path.is_file():
            try:
                content = self.path(picture).read_bytes()
            except FileNotFoundError:
                raise NotFoundError(f"the file of the picture {picture.id!r} is gone; remove the picture.") from None
            self._write(path, make_thumbnail(content))
        return path

    def remove(self, picture: PictureRecord) -> None:
        """Removes the file of a picture and its thumbnail; they may be gone already.

        Raises:
            StorageError: the storage does not answer.
        """
        name = _output(picture.id, picture.created, picture.media_type)
        self._thumbnail(picture).unlink(missing_ok=True)
        (self._outputs / name).unlink(missing_ok=True)
        if self._bucket:
            self._bucket.remove(name)

    # Room.

    def collect_garbage(self, inputs: Collection[str], pictures: Collection[str], min_age: float = YOUNG_SECONDS) -> int:
        """Removes what no row names, such as what a kill left.

        Args:
            inputs: hashes of the inputs that are needed.
            pictures: ids of all finished pictures.
            min_age: seconds; what was written since then stays, as its row may come.

        Returns:
            The number of files that were removed.
        """
        files, old = dict[Path, bool](), time.time() - min_age
        for path in (self.root / INPUTS).iterdir():
            files[path] = path.name in inputs
        for folder in (OUTPUTS, THUMBNAILS, FETCHED):
            for path in (self.root / folder).glob("*/*"):
                files[path] = path.stem in pictures
        count = 0
        for path, is_needed in files.items():
            if not is_needed and _modified(path) <= old:  # at this moment: it may have been sent once more
                path.unlink(missing_ok=True)
                count += 1
        return count

    def free_bytes(self) -> int:
        """Bytes that may still be written."""
        free = min(shutil.disk_usage(folder).free for folder in (self.root, self._outputs))
        return max(0, free - self.reserve)

    def check_room(self, size: int = 1) -> None:
        """Raises FullDiskError if there is no room for `size` bytes more."""
        if (free := self.free_bytes()) < size:
            room = f"{size:,} bytes are needed and {free:,} may be used"
            raise FullDiskError(f"the studio's disk is full ({room}): remove pictures, or give it more room.")

    def _input(self, name: str) -> Path:
        if not _HASH.fullmatch(name):
            raise NotFoundError("a picture that was sent is named by its SHA-256, in 64 hexadecimal digits.")
        return self.root / INPUTS / name

    def _thumbnail(self, picture: PictureRecord) -> Path:
        return self.root / THUMBNAILS / _output(picture.id, picture.created, "image/webp")

    def _forget_fetched(self, room: int) -> None:
        """Removes fetched files until the others take no more than `room` bytes."""
        files = sorted(((_modified(path), path) for path in self._outputs.glob("*/*")), reverse=True)
        recent = time.time() - RECENT_SECONDS
        for modified, path in files:
            room -= _size(path)
            if room < 0 and modified < recent:
                path.unlink(missing_ok=True)

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


def _output(id: str, created: datetime, media_type: str) -> str:
    """The name of a picture's file, below the folder of all."""
    if not id.isalnum():
        raise NotFoundError("a picture is named by its id, in letters and digits.")
    return f"{created:%Y-%m-%d}/{id}.{SUFFIXES[media_type]}"


def _touch(path: Path) -> bool:
    """Notes that a file is asked for, or sent again; whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


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
