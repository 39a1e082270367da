"""Stores of other versions: an older one is brought up to date, a newer one is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from seesr.studio.errors import StudioError
from seesr.studio.records import User
from seesr.studio.store import Store, sqlite_url
from seesr.studio.store.tables import Table

VERSION_1 = Path(__file__).parent / "version_1.sql"
"""What SQLite's `.dump` says of a store of version 1 with a row in each table."""


def test_store_of_version_1_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1.read_text())
    connection.close()
    with Store(sqlite_url(path)) as store:
        # Every task with its settings in full: what is kept stays readable, or a migration makes it so.
        tags, inpainting, pending, done = store.jobs()
        assert (tags.user, tags.request.task, inpainting.request.task) == ("bo", "tags", "inpainting")
        assert len(inpainting.request.pictures) == 2
        assert (done.user, done.state, done.request.task, done.device) == ("ada", "done", "upscale", "cpu")
        assert (done.notes, done.result) == (["the tile was reduced"], {"seconds": {"denoise": 2.5}})
        assert [(picture.width, picture.settings) for picture in done.pictures] == [(96, {"seed": 7})]
        assert (pending.state, pending.ahead, pending.priority, pending.retry_of) == ("pending", 0, 1, done.id)
        assert store.queue_status().reason == "the disk is full"
        assert store.users() == [User(name="ada", role="admin")]
        assert store.password_hash("ada") == "a hash"
        assert store.setting("ada", "form") == {"steps": 4}
        key, session = store.key("k1"), store.session("token hash")
        assert key is not None
        assert (key.key_hash, key.label) == ("key hash", "laptop")
        assert session is not None
        assert session.user.is_admin
        assert store.used_bytes("ada") == 1234 + 500


def test_migrations_make_the_tables_that_the_program_uses(database: str) -> None:
    with Store(database) as store, store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []


def test_newer_store_is_refused_and_left_as_it_is(database: str) -> None:
    with Store(database) as store, store._writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for _ in range(2):
        with pytest.raises(
            StudioError, match=r"has version 9999, made by a newer SeeSR; this one knows versions up to \d{4}"
        ):
            Store(database)
