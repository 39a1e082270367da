"""The store's database: opening it, bringing its tables up to date, and transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from seesr.errors import first_line
from seesr.studio.errors import FullDiskError, NotFoundError, StudioError
from seesr.studio.records import Job, PictureRecord
from seesr.studio.store.tables import BoardRow, JobRow, KeyRow, PictureRow, QueueRow

Row = TypeVar("Row", BoardRow, JobRow, KeyRow, PictureRow)
Listed = TypeVar("Listed", Job, PictureRecord)

BUSY_SECONDS = 30
"""How long a transaction waits for another one."""
PAGE = 200
"""Rows that are read at once where all are wanted."""
MIGRATION_LOCK = 5_330_700
"""Number of PostgreSQL's advisory lock under which tables are changed."""
_WRITES = "seesr_writes"


class Database:
    """A database at a URL, with the newest tables. Threads may share it.

    Raises:
        StudioError: it cannot be opened, or a newer program has changed its tables.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse_url(url)
        self._engine = _create_engine(self._url)
        # What a reader sees does not change between its queries; a writer sees what it has waited for, and says so when it
        # begins: SQLite refuses one that finds out later than another. SQLite's readers need no level.
        is_postgres = self._url.get_backend_name() == "postgresql"
        levels = ("REPEATABLE READ", "READ COMMITTED")
        reading, writing = ({"isolation_level": level} if is_postgres else {} for level in levels)
        self._reader = self._engine.execution_options(**reading)
        self._writer = self._engine.execution_options(**{_WRITES: True}, **writing)
        try:
            self._migrate()
        except DBAPIError as error:
            self._engine.dispose()
            raise StudioError(f"the store {self.address} cannot be opened: {first_line(error.orig or error)}.") from error
        except StudioError:
            self._engine.dispose()
            raise

    @property
    def address(self) -> str:
        """The URL, without a password."""
        return self._url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[Session]:
        """A transaction that sees one state and changes nothing.

        Raises:
            StudioError: a value cannot be kept in the database.
        """
        with self._errors(), Session(self._reader) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        """A transaction that is kept whole, or not at all.

        Raises:
            FullDiskError: there is no room for it.
            StudioError: a value cannot be kept in the database.
        """
        with self._errors(), Session(self._writer) as session, session.begin():
            yield session

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:  # PostgreSQL's text takes no NUL
            raise StudioError("a text has a character that the database cannot keep, such as NUL; leave it out.") from error
        except DBAPIError as error:
            if _is_full_disk(error):
                raise FullDiskError(f"the disk of the store {self.address} is full; make room on it.") from error
            raise

    def _migrate(self) -> None:
        scripts = Config()
        scripts.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        directory = ScriptDirectory.from_config(scripts)
        with self._writer.begin() as connection:
            _lock_tables(connection)
            version = MigrationContext.configure(connection).get_current_revision()
            known = [script.revision for script in directory.walk_revisions()]
            if version is not None and version not in known:
                raise StudioError(
                    f"the store {self.address} has version {version}, made by a newer SeeSR; "
                    f"this one knows versions up to {known[0]}: update it, or restore a backup."
                )
            if version != known[0]:
                scripts.attributes["connection"] = connection
                command.upgrade(scripts, "head")


def lock_queue(session: Session) -> QueueRow:
    """The queue, which only this transaction changes until its end; on SQLite one that writes is alone anyway."""
    return session.scalars(select(QueueRow).with_for_update()).one()


def row_of(session: Session, table: type[Row], id: str, name: str) -> Row:
    """The row of an id.

    Args:
        name: of what it is, for the error.

    Raises:
        NotFoundError: there is none.
    """
    row = session.scalars(select(table).where(table.id == id)).first()
    if row is None:
        raise NotFoundError(f"there is no {name} {id!r}; list the {name}s to see their ids.")
    return row


def all_pages(page: Callable[[str | None], list[Listed]]) -> Iterator[Listed]:
    """All that is listed in pages.

    Args:
        page: of what follows on the id of the last one before; None is the beginning.
    """
    before = None
    while records := page(before):
        yield from records
        before = records[-1].id


def sqlite_url(path: Path) -> str:
    """The URL of a store in a file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # What was given is not repeated: it may hold a password.
        raise StudioError("the database's URL cannot be read; give one such as sqlite:////data/studio.db.") from None
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise StudioError(
            f"the database {parsed.render_as_string()} is not supported; give sqlite:///FILE or postgresql://USER@HOST/NAME."
        )
    return parsed


def _create_engine(url: URL) -> Engine:
    """An engine whose errors, which the log holds, repeat no values: they may be prompts."""
    if url.get_backend_name() == "postgresql":
        try:
            return create_engine(url, pool_pre_ping=True, max_overflow=40, hide_parameters=True)
        except ModuleNotFoundError as error:
            raise StudioError(
                "PostgreSQL needs the package psycopg; install it with pip install 'psycopg[binary]'."
            ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, max_overflow=40, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says so, below
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")

    return engine


def _lock_tables(connection: Connection) -> None:
    """Lets one program at a time change tables; on SQLite the transaction does so by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})


def _is_full_disk(error: DBAPIError) -> bool:
    """SQLITE_FULL, or PostgreSQL's class 53100."""
    return (
        getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(error.orig, "sqlstate", "") == "53100"
    )
