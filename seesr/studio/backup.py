"""Backups: a tar file of the store, the settings and the pictures, taken while the studio runs."""

from __future__ import annotations

import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.engine import make_url

from seesr.errors import InputError, OutputError, first_line
from seesr.files import atomic_write
from seesr.jobs import content_hash
from seesr.studio.errors import ConflictError, StudioError
from seesr.studio.files import INPUTS, OUTPUTS, FileStore
from seesr.studio.settings import DATABASE, FILE
from seesr.studio.store import Store, sqlite_url

NAMES = (OUTPUTS, INPUTS, FILE, DATABASE)
"""What a backup holds, in the order in which it is put back: a folder without a store holds no studio."""


def backup(data: Path, url: str, target: Path) -> int:
    """Writes a backup. Models and plugins are not in it: they are the operator's own files.

    The store is copied first; of what is added or removed meanwhile, the backup holds either both row and file or neither.

    Args:
        data: the studio's folder.
        url: of its store, in SQLite.

    Returns:
        the number of pictures in it.

    Raises:
        OutputError: the file exists, or cannot be written.
        StudioError: the store is not in SQLite, or cannot be opened.
    """
    if target.exists():
        raise OutputError(f"{target} exists; give the backup another name, or remove that file first.")
    location = make_url(url)
    if location.get_backend_name() != "sqlite":
        raise StudioError("a store in PostgreSQL is backed up by pg_dump; copy the folders inputs and outputs after it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".seesr-backup-", dir=target.parent) as folder:
            copy = Path(folder) / DATABASE
            _copy_database(Path(location.database or ""), copy)
            with atomic_write(target, mode=0o600) as temporary, tarfile.open(temporary, "w") as archive:
                count = _add_files(archive, data, copy)
                archive.add(copy, DATABASE)
            return count
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"the backup {target} cannot be written: {first_line(error)}.") from error


def restore(source: Path, data: Path) -> int:
    """Unpacks a backup into a folder that holds no studio yet, once every picture has proved whole.

    Returns:
        the number of pictures in it.

    Raises:
        InputError: it is no backup, or it is damaged.
        ConflictError: the folder holds a studio.
        StudioError: a newer program has made it.
    """
    for path in (data / name for name in NAMES):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ConflictError(f"{path} exists and is not overwritten; give a folder without a studio, or move that away.")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryDirectory(prefix=".seesr-restore-", dir=data) as folder:
        unpacked = Path(folder)
        files = FileStore(unpacked, reserve=0)
        try:
            with tarfile.open(source) as archive:
                archive.extractall(unpacked, _members(archive), filter="data")
        except tarfile.TarError as error:
            raise InputError(f"{source} is not a backup of the studio, or is damaged; give a whole one.") from error
        except OSError as error:
            raise InputError(f"{source} cannot be unpacked: {first_line(error)}.") from error
        if not (unpacked / DATABASE).is_file():
            raise InputError(f"{source} is not a backup of the studio: there is no {DATABASE} in it.")
        with Store(sqlite_url(unpacked / DATABASE)) as store:
            count = _check_pictures(store, files, source)
        for name in NAMES:
            if (unpacked / name).exists():
                os.replace(unpacked / name, data / name)
    return count


def _copy_database(path: Path, copy: Path) -> None:
    """A copy of the store at one moment, while others may write to it."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, uri=True)) as origin, closing(sqlite3.connect(copy)) as target:
        origin.backup(target)


def _add_files(archive: tarfile.TarFile, data: Path, copy: Path) -> int:
    """Adds the files that the copied store needs; rows whose picture has been removed meanwhile are removed from it."""
    with Store(sqlite_url(copy)) as store:
        inputs, pictures = store.used_inputs(), store.picture_ids()
        missing = set(pictures)
        needed = [path for path in data.glob(f"{INPUTS}/*") if path.name in inputs]
        needed += [path for path in data.glob(f"{OUTPUTS}/*/*") if path.stem in pictures]
        for path in sorted([*needed, data / FILE]):
            try:
                archive.add(path, str(path.relative_to(data)), recursive=False)
            except FileNotFoundError:
                continue
            missing.discard(path.stem)
        for id in missing:
            store.remove_picture(id)
        return len(pictures) - len(missing)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of a studio, and nothing else that an archive may hold."""
    return (member for member in archive if member.isfile() and Path(member.name).parts[0] in NAMES)


def _check_pictures(store: Store, files: FileStore, source: Path) -> int:
    count = 0
    for picture in store.all_pictures():
        path = files.path(picture)
        if not path.is_file() or content_hash(path.read_bytes()) != picture.digest:
            raise InputError(f"{source} is damaged: the picture {picture.id} is missing or not whole; use another backup.")
        count += 1
    return count
