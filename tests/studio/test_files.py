"""The studio's files: whole or absent, found by ids and hashes alone."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seesr.jobs import content_hash
from seesr.studio.errors import FullDiskError, NotFoundError
from seesr.studio.files import FileStore

NOW = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path, reserve=0)


def everything(files: FileStore) -> list[Path]:
    return [path for path in files.root.rglob("*") if path.is_file()]


def test_what_was_sent_is_found_by_its_hash_and_kept_once(files: FileStore) -> None:
    name = files.put_input(b"a picture")
    assert name == files.put_input(b"a picture") == content_hash(b"a picture")
    assert files.input(name) == b"a picture"
    assert [path.stat().st_mode & 0o077 for path in everything(files)] == [0]


@given(name=st.text(max_size=70) | st.sampled_from(["../studio.db", "/etc/passwd", "..", "", "0" * 63 + "A"]))
def test_no_name_leads_to_another_file(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    files = FileStore(tmp_path_factory.getbasetemp() / "names", reserve=0)
    (files.root / "studio.db").write_bytes(b"secret")
    with pytest.raises(NotFoundError):
        files.input(name)
    if not name.isalnum():
        with pytest.raises(NotFoundError):
            files.put_output(name, NOW, "image/png", b"")


def test_a_full_disk_leaves_no_part_of_a_file(files: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FullDiskError, match="disk is full"):
        files.put_output("a1", NOW, "image/webp", b"a picture")
    with pytest.raises(FullDiskError):
        files.put_input(b"a picture")
    assert everything(files) == []


def test_what_stays_free_is_not_used(files: FileStore) -> None:
    files.reserve = 1 << 60
    assert files.free_bytes() == 0
    with pytest.raises(FullDiskError, match=r"9 bytes are needed and 0 may be used"):
        files.put_output("a1", NOW, "image/png", b"a picture")
    assert everything(files) == []


def test_a_picture_is_in_the_folder_of_its_day(files: FileStore) -> None:
    files.put_output("a1", NOW, "image/jpeg", b"a picture")
    assert (files.root / "outputs" / "2026-11-30" / "a1.jpg").read_bytes() == b"a picture"
