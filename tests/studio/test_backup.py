"""Backups of a studio: taken while it changes, put back whole or not at all."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import text

from seesr.errors import InputError, OutputError, SeeSRError
from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest, TagsRequest, content_hash
from seesr.studio.backup import backup, restore
from seesr.studio.errors import ConflictError, StudioError
from seesr.studio.files import FileStore
from seesr.studio.records import PictureRecord
from seesr.studio.store import Store, sqlite_url


class Folder:
    """A studio's folder, to which pictures come."""

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, sqlite_url(root / "studio.db")
        self.files, self.store = FileStore(root, reserve=0), Store(self.url)

    def add_picture(self, number: int) -> PictureRecord:
        """A finished picture: its file first, then its row."""
        file = io.BytesIO()
        Image.new("RGB", (32, 24), (number % 256, 128, 64)).save(file, "PNG")
        content, created = file.getvalue(), datetime.now(UTC)
        record = PictureRecord(
            id=f"picture{number}",
            job=self.store.add_job("ada", GenerationRequest(options=GenerationOptions(prompt="a gull"))).id,
            user="ada",
            index=0,
            created=created,
            width=32,
            height=24,
            media_type="image/png",
            size=len(content),
            digest=content_hash(content),
        )
        self.files.put_output(record.id, created, record.media_type, content)
        self.store.add_picture(record)
        return record

    def remove_picture(self, id: str) -> None:
        """As the studio does: the row first, then the file."""
        self.files.remove(self.store.remove_picture(id))

    def check(self) -> int:
        """The number of pictures; each has its row and its file, and none has only one of them."""
        rows = {picture.id: picture for picture in self.store.pictures(count=1_000_000)}
        files = {path.stem: path for path in (self.root / "outputs").glob("*/*")}
        assert rows.keys() == files.keys()
        assert all(content_hash(files[id].read_bytes()) == picture.digest for id, picture in rows.items())
        return len(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """One with four pictures, an upload that a job takes, one that nobody needs, settings and models."""
    folder = Folder(tmp_path / "data")
    for number in range(4):
        folder.add_picture(number)
    image = folder.files.put_input(b"taken")
    folder.files.put_input(b"nobody's")
    folder.store.add_job("ada", TagsRequest(task="tags", image=image))
    (folder.root / "studio.toml").write_text("[limits]\nqueue_length = 7\n")
    (folder.root / "models").mkdir()
    (folder.root / "models" / "large.safetensors").write_bytes(b"x")
    return folder


def test_backup_is_put_back_as_it_was(folder: Folder, tmp_path: Path) -> None:
    (folder.root / "outputs" / "2026-01-01").mkdir()
    (folder.root / "outputs" / "2026-01-01" / "orphan.png").write_bytes(b"no row names it")
    target, data = tmp_path / "studio.tar", tmp_path / "restored"
    assert backup(folder.root, folder.url, target) == 4
    assert target.stat().st_mode & 0o777 == 0o600
    FileStore(data)  # its empty folders are in nobody's way
    assert restore(target, data) == 4
    restored = Folder(data)
    assert restored.check() == 4
    assert restored.store.jobs() == folder.store.jobs()
    assert restored.files.input(content_hash(b"taken")) == b"taken"
    assert [path.name for path in (data / "inputs").iterdir()] == [content_hash(b"taken")]
    assert (data / "studio.toml").read_text() == "[limits]\nqueue_length = 7\n"
    assert sorted(path.name for path in data.iterdir() if "db-" not in path.name) == [
        "inputs",
        "outputs",
        "studio.db",
        "studio.toml",
    ]


def test_backup_of_a_studio_that_changes_has_row_and_file_or_neither(folder: Folder, tmp_path: Path) -> None:
    ended, numbers = threading.Event(), itertools.count(100)

    def change() -> None:
        while not ended.is_set():
            number = next(numbers)
            folder.add_picture(number)
            if number > 110:
                folder.remove_picture(f"picture{number - 10}")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for round in range(5):
            count = backup(folder.root, folder.url, tmp_path / f"{round}.tar")
            assert restore(tmp_path / f"{round}.tar", tmp_path / f"{round}") == count
            assert Folder(tmp_path / f"{round}").check() == count >= 4
    finally:
        ended.set()
        thread.join()


def test_nothing_is_overwritten(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "studio.tar"
    backup(folder.root, folder.url, target)
    content = target.read_bytes()
    with pytest.raises(OutputError, match=r"studio\.tar exists; give the backup another name"):
        backup(folder.root, folder.url, target)
    folder.add_picture(9)
    with pytest.raises(ConflictError, match="exists and is not overwritten"):
        restore(target, folder.root)
    assert target.read_bytes() == content
    assert folder.check() == 5


def test_damaged_foreign_and_newer_archives_leave_nothing(folder: Folder, tmp_path: Path) -> None:
    target, data = tmp_path / "studio.tar", tmp_path / "restored"
    backup(folder.root, folder.url, target)
    content = target.read_bytes()
    png = content.index(b"\x89PNG")
    foreign = io.BytesIO()
    with tarfile.open(fileobj=foreign, mode="w") as archive:
        link = tarfile.TarInfo("studio.db")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("../escaped"))
    with folder.store._writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    cases: list[tuple[bytes, type[SeeSRError], str]] = [
        (content[: png + 20] + b"!" + content[png + 21 :], InputError, "is missing or not whole; use another backup"),
        (content[: len(content) // 2], InputError, "is not a backup of the studio"),
        (b"no tar file" * 100, InputError, "is not a backup of the studio, or is damaged"),
        (foreign.getvalue(), InputError, r"there is no studio\.db in it"),
    ]
    for archive_content, error, message in cases:
        target.write_bytes(archive_content)
        with pytest.raises(error, match=message):
            restore(target, data)
        assert os.listdir(data) == []
    assert not (tmp_path / "escaped").exists()
    with pytest.raises(StudioError, match="made by a newer SeeSR"):
        backup(folder.root, folder.url, tmp_path / "other.tar")
    assert not (tmp_path / "other.tar").exists()


def test_store_in_postgresql_is_left_to_its_own_tools(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="backed up by pg_dump"):
        backup(tmp_path, "postgresql://user@host/name", tmp_path / "studio.tar")
