"""The store among threads, its queries, and what it says where it cannot work."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, update

from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest, TagsRequest, content_hash
from seesr.studio.errors import ConflictError, FullDiskError, LimitError, NotFoundError, StudioError
from seesr.studio.limits import QueueLimits
from seesr.studio.records import User
from seesr.studio.store import Store, sqlite_url
from seesr.studio.store.tables import InputRow, SubmissionRow

REQUEST = GenerationRequest(options=GenerationOptions(prompt="a gull", width=64, height=64))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store(database) as store:
        yield store


@contextmanager
def queries(store: Store) -> Iterator[list[str]]:
    """The statements that the store runs."""
    statements: list[str] = []

    def note(*arguments: object) -> None:
        if not str(arguments[2]).startswith("BEGIN"):
            statements.append(str(arguments[2]))

    event.listen(store._engine, "before_cursor_execute", note)
    yield statements
    event.remove(store._engine, "before_cursor_execute", note)


def test_a_removed_user_gets_no_more_jobs(store: Store) -> None:
    """One whose request began before would leave jobs to whoever has the name next."""
    for name in ("ada", "bo"):
        store.add_user(name, None)
    store.remove_user("bo")
    with pytest.raises(NotFoundError, match="there is no user 'bo' any more"):
        store.add_job("bo", REQUEST)
    assert store.add_job("ada", REQUEST).user == "ada"


def test_each_job_is_claimed_once_by_devices_at_the_same_time(database: str) -> None:
    count = 40
    with Store(database) as first, Store(database) as second, ThreadPoolExecutor(8) as pool:
        added = [job.id for job in pool.map(lambda number: first.add_job(f"user {number % 3}", REQUEST), range(count))]
        assert len(set(added)) == count
        together = threading.Barrier(8)

        def work(number: int) -> list[str]:
            store, ids = (first, second)[number % 2], []
            together.wait()
            while job := store.claim_job(f"cuda:{number}"):
                ids.append(job.id)
                store.end_job(job.id, "done")
            return ids

        claimed = [id for ids in pool.map(work, range(8)) for id in ids]
        assert Counter(claimed) == Counter(added)
        assert first.counts() == {("done", "text to image"): count}


def test_queue_limits_hold_among_threads(store: Store) -> None:
    limits = QueueLimits(queue_length=5, user_queue_length=3)

    def add(number: int) -> str:
        try:
            return store.add_job(f"user {number % 2}", REQUEST, limits=limits).id
        except LimitError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(add, range(20)))
    assert store.queue_status().pending == 5
    assert max(Counter(job.user for job in store.jobs()).values()) == 3
    assert {answer for answer in answers if " " in answer} <= {
        "5 jobs are pending, and the limit is 5; try again later.",
        "3 of your jobs are pending, and the limit is 3; wait for one of them, or cancel one.",
    }


def test_share_of_an_hour_counts_pruned_and_edited_jobs(store: Store) -> None:
    limits = QueueLimits(jobs_per_hour=3, megapixels_per_hour=2)
    for megapixels in (0.5, 1.0):
        job = store.add_job("ada", REQUEST, limits=limits, megapixels=megapixels)
        store.end_job(job.id, "done")
    store.prune_jobs(datetime.now(UTC) + timedelta(seconds=1), keep_pictures=False)
    assert store.jobs() == []
    with pytest.raises(LimitError, match=r"0\.6 megapixels, and 0\.5 of the 2 within an hour are left"):
        store.add_job("ada", REQUEST, limits=limits, megapixels=0.6)
    pending = store.add_job("ada", REQUEST, limits=limits, megapixels=0.25)
    with pytest.raises(LimitError, match=r"0\.5 of the 2"):
        store.edit_job(pending.id, REQUEST, limits, megapixels=0.6)
    store.edit_job(pending.id, REQUEST, limits, megapixels=0.5)
    with pytest.raises(LimitError, match="3 jobs within the last hour, and the limit is 3"):
        store.add_job("ada", REQUEST, limits=limits)
    store.add_job("bo", REQUEST, limits=limits, megapixels=2)
    with store._write() as session:
        session.execute(update(SubmissionRow).values(created=datetime.now(UTC) - timedelta(hours=1)))
    store.add_job("ada", REQUEST, limits=limits, megapixels=2)


def test_a_page_takes_as_many_queries_with_fifty_jobs_as_with_one(store: Store) -> None:
    counts = []
    for number in (1, 49):
        for _ in range(number):
            job = store.add_job("ada", REQUEST)
        with queries(store) as statements:
            store.jobs(count=50)
            store.job(job.id)
            store.queue_status()
            store.counts()
            store.pictures()
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 13


def test_pages_hold_each_job_once(store: Store) -> None:
    ids = [store.add_job("ada" if number % 2 else "bo", REQUEST).id for number in range(11)]
    pages, last = [], None
    while page := [job.id for job in store.jobs(before=last, count=4)]:
        pages.append(page)
        last = page[-1]
        store.add_job("cy", REQUEST)  # what is new does not shift the pages
    assert pages == [ids[:6:-1], ids[6:2:-1], ids[2::-1]]
    assert [job.id for job in store.jobs("bo", ["pending"], count=3)] == ids[10:5:-2]


def test_users_keys_sessions_and_settings(store: Store) -> None:
    ada, later = store.add_user("ada", "hash", "admin"), datetime.now(UTC) + timedelta(hours=1)
    store.add_user("bo", None)
    with pytest.raises(ConflictError, match="there is a user 'ada' already"):
        store.add_user("ada", None)
    assert store.users() == [ada, User(name="bo")]
    assert (store.password_hash("ada"), store.password_hash("bo"), store.password_hash("nobody")) == ("hash", None, None)
    store.set_password_hash("ada", "other")
    assert store.password_hash("ada") == "other"
    key = store.add_key("ada", "k1", "secret hash", "laptop")
    assert store.key("k1") == key
    assert (key.user, key.label, key.key_hash) == (ada, "laptop", "secret hash")
    assert "secret" not in repr(key) + key.model_dump_json()
    store.add_session("token hash", "ada", later)
    store.add_session("old", "bo", datetime.now(UTC))
    session = store.session("token hash")
    assert session is not None
    assert (session.user, session.expires) == (ada, later)
    assert store.session("old") is None
    store.expire_sessions(later)
    assert store.session("token hash") is None
    for value in ({"steps": [1, 2]}, "text", 0, False):
        store.set_setting("ada", "form", value)
        assert store.setting("ada", "form") == value
    assert store.setting("bo", "form") is None
    store.add_session("token hash", "ada", later)
    store.remove_user("ada")
    assert (store.key("k1"), store.session("token hash"), store.setting("ada", "form")) == (None, None, None)
    with pytest.raises(NotFoundError, match="there is no user 'ada'"):
        store.add_key("ada", "k2", "hash", "phone")


def test_text_that_a_database_cannot_keep_is_an_error_of_the_client(store: Store) -> None:
    for look_up in (store.job, store.picture, store.user, store.remove_key):
        with pytest.raises(StudioError):
            look_up("no\0name")


def test_uploads_belong_to_users_and_expire_unless_a_job_takes_them(store: Store) -> None:
    taken, spare = content_hash(b"taken"), content_hash(b"spare")
    for digest in (taken, spare, spare):
        store.add_input("ada", digest, 100)
    assert store.has_input("ada", taken)
    assert not store.has_input("bo", taken)
    assert store.used_bytes("ada") == 200
    assert store.used_bytes("bo") == 0
    store.add_job("ada", TagsRequest(task="tags", image=taken))
    store.add_job("bo", TagsRequest(task="tags", image=spare))
    store.expire_inputs(datetime.now(UTC) - timedelta(hours=1))
    assert store.has_input("ada", spare)
    with store._write() as session:
        session.execute(update(InputRow).values(created=datetime.now(UTC) - timedelta(hours=2)))
    store.expire_inputs(datetime.now(UTC) - timedelta(hours=1))
    assert (store.has_input("ada", taken), store.has_input("ada", spare)) == (True, False)
    assert store.used_inputs() == {taken, spare}


def test_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    with Store(sqlite_url(tmp_path / "studio.db")) as store:
        first = store.add_job("ada", REQUEST)
        store._engine.dispose()

        @event.listens_for(store._engine, "connect")
        def limit_pages(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the pages that there are

        def fill() -> None:
            for _ in range(1000):
                store.add_job("ada", REQUEST)

        with pytest.raises(FullDiskError, match="is full; make room on it"):
            fill()
        assert store.end_job(first.id, "done").state == "done"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "is not supported"),
        ("mysql://user:secret@host/name", "mysql://user:\\*\\*\\*@host/name is not supported"),
        ("no url secret", "cannot be read"),
        ("sqlite:////nowhere/studio.db", "cannot be opened: unable to open database file"),
        ("postgresql://user:secret@127.0.0.1:1/name", "cannot be opened"),
    ],
)
def test_database_that_cannot_be_used_is_refused_in_one_sentence(url: str, message: str) -> None:
    with pytest.raises(StudioError, match=message) as error:
        Store(url)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    path.write_bytes(b"these are notes, not a database" * 100)
    with pytest.raises(StudioError, match="cannot be opened: file is not a database"):
        Store(sqlite_url(path))
    assert path.read_bytes() == b"these are notes, not a database" * 100
