"""ZIP files that are made while they are sent: pictures, and all that is kept of a user."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seesr.studio.files import FileStore
from seesr.studio.records import ALL_PICTURES, PictureRecord, PictureSearch

if TYPE_CHECKING:
    from seesr.studio.store import Store

PART = 1 << 20
"""Bytes of a file that are read at once."""
FIRST_IN_ZIP = datetime(1980, 1, 1, tzinfo=UTC)
"""The earliest moment that a ZIP file can hold; pictures of a folder may have older dates, or none."""


def archive_pictures(files: FileStore, pictures: Iterable[PictureRecord]) -> Iterator[bytes]:
    """The files of pictures: a ZIP file in parts, as `YYYY-MM-DD/<id>.<suffix>`; what is gone is left out."""
    chunks = _Chunks()
    with zipfile.ZipFile(chunks, "w", zipfile.ZIP_STORED) as archive:
        yield from _write_pictures(archive, chunks, "", files, pictures)
    yield chunks.take()


def archive_user(files: FileStore, store: Store, name: str) -> Iterator[bytes]:
    """All that is kept of a user: a ZIP file in parts, with `jobs.json` and the pictures, also those in the trash."""
    chunks = _Chunks()
    with zipfile.ZipFile(chunks, "w", zipfile.ZIP_STORED) as archive:
        for search in (ALL_PICTURES, PictureSearch(trash=True)):
            yield from _write_pictures(archive, chunks, "pictures/", files, store.all_pictures(name, search))
        with archive.open("jobs.json", "w") as file:
            file.write(b"[")
            for number, job in enumerate(store.all_jobs(name)):
                file.write(b",\n" if number else b"\n")
                file.write(json.dumps(job.model_dump(mode="json")).encode())
            file.write(b"\n]\n")
    yield chunks.take()


def _write_pictures(
    archive: zipfile.ZipFile, chunks: _Chunks, folder: str, files: FileStore, pictures: Iterable[PictureRecord]
) -> Iterator[bytes]:
    """Writes the files of pictures, as far as they are there, into an archive over `chunks`, whose parts it yields."""
    for picture in pictures:
        path = files.path(picture)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            moment = max(picture.created, FIRST_IN_ZIP).timetuple()[:6]
            entry = zipfile.ZipInfo(f"{folder}{picture.created:%Y-%m-%d}/{path.name}", moment)
            entry.file_size = picture.size
            with archive.open(entry, "w") as target:
                while part := file.read(PART):
                    target.write(part)
                    yield chunks.take()
        yield chunks.take()


class _Chunks:
    """A file that is only written, and taken away in parts."""

    def __init__(self) -> None:
        self._parts, self._position = list[bytes](), 0

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
