"""Databases for the studio's tests: a file, and a PostgreSQL of the tests' own."""

from __future__ import annotations

import getpass
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from system_programs import need_program

from seesr.studio.store import sqlite_url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Makes an empty database and returns its URL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb, pg_ctl = need_program("initdb", *programs), need_program("pg_ctl", *programs)
    user = getpass.getuser()
    # PostgreSQL does not run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if user == "root" else []
    folder = Path(tempfile.mkdtemp(prefix="seesr-pg-"))
    if prefix:
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(initdb, "-D", data, "--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8")
    run(pg_ctl, "-D", data, "-w", "-l", folder / "log", "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "start")
    try:
        numbers = itertools.count()

        def make() -> str:
            name = f"store{next(numbers)}"
            with psycopg.connect(host=str(folder), user="postgres", autocommit=True) as connection:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
            return f"postgresql://postgres@/{name}?host={folder}"

        yield make
    finally:
        run(pg_ctl, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "studio.db")
    return request.getfixturevalue("postgres")()
