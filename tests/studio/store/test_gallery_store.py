"""Searches of the store against the same in Python, its boards, and the queries that they take."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_records import picture_of
from sqlalchemy import event

from seesr.studio.records import PictureRecord, PictureSearch
from seesr.studio.store import Store, sqlite_url
from seesr.studio.store.terms import picture_terms

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.sampled_from(["sea", "SEA", "lake", "Straße", "strasse", "湖", "a b"])
MOMENTS = st.integers(0, 3).map(lambda day: START + timedelta(days=day))
RECORDS = st.builds(
    lambda user, prompt, created, tags, favourite, trashed, **settings: picture_of(
        user, created=created, tags=tags, favourite=favourite, trashed=trashed, settings={"prompt": prompt, **settings}
    ),
    user=st.sampled_from(["ada", "bo"]),
    prompt=st.lists(NAMES, max_size=3).map(" ".join),
    created=MOMENTS,
    tags=st.lists(NAMES, max_size=2, unique=True),
    favourite=st.booleans(),
    trashed=st.none() | MOMENTS,
    loras=st.dictionaries(NAMES, st.just("12ab"), max_size=2),
    weights=NAMES,
)
SEARCHES = st.builds(
    PictureSearch,
    words=st.lists(NAMES, max_size=2).map(" ".join),
    tags=st.lists(NAMES, max_size=2).map(tuple),
    lora=st.none() | NAMES,
    checkpoint=st.none() | NAMES,
    since=st.none() | MOMENTS,
    until=st.none() | MOMENTS,
    favourite=st.booleans(),
    trash=st.booleans(),
)


def is_found(record: PictureRecord, search: PictureSearch) -> bool:
    """What a search means."""
    has = [(kind, term) for kind, term in picture_terms(record.settings, record.tags)]
    wanted = {"prompt": search.words, "loras": {search.lora: ""} if search.lora else {}, "weights": search.checkpoint}
    return (
        set(picture_terms(wanted, search.tags)) <= set(has)
        and (search.since is None or record.created >= search.since)
        and (search.until is None or record.created < search.until)
        and (record.favourite or not search.favourite)
        and (record.trashed is not None) == search.trash
    )


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store(database) as store:
        yield store


@given(records=st.lists(RECORDS, max_size=12), search=SEARCHES, user=st.sampled_from(["ada", "bo", None]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_search_finds_page_by_page_what_it_means(
    store: Store, records: list[PictureRecord], search: PictureSearch, user: str | None
) -> None:
    for owner in ("ada", "bo"):
        for trash in (False, True):
            for old in store.pictures(owner, count=1000, search=PictureSearch(trash=trash)):
                store.remove_picture(old.id)
    for record in records:
        store.add_picture(record)
    wanted = [record for record in reversed(records) if user in (None, record.user) and is_found(record, search)]
    wanted.sort(key=lambda record: record.created, reverse=True)  # stable: of the same moment the last one added is first
    found, before = [], None
    while page := store.pictures(user, before, 2, search):
        assert len(page) <= 2
        found, before = [*found, *page], page[-1].id
    assert found == wanted


def counting(store: Store, look: Callable[[], object]) -> int:
    """The number of queries."""
    statements = list[str]()

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.extend([] if statement.startswith("BEGIN") else [statement])

    event.listen(store._engine, "before_cursor_execute", note)
    try:
        look()
    finally:
        event.remove(store._engine, "before_cursor_execute", note)
    return len(statements)


def test_a_page_takes_the_same_few_queries_however_many_pictures_there_are(store: Store) -> None:
    board = store.add_board("ada", "all")
    search = PictureSearch(words="sea", tags=("boat",), board=board.id)

    def looks() -> list[int]:
        return [
            counting(store, lambda: store.pictures("ada", None, 50)),
            counting(store, lambda: store.pictures("ada", None, 50, search)),
            counting(store, lambda: store.boards("ada")),
            counting(store, lambda: store.terms("tag", "ada")),
        ]

    def add(count: int) -> None:
        records = [picture_of("ada", tags=["boat"], settings={"prompt": "the sea"}) for _ in range(count)]
        for record in records:
            store.add_picture(record)
        store.change_board(board.id, add=[record.id for record in records])

    add(1)
    before = looks()
    add(120)
    assert len(store.pictures("ada", None, 50, search)) == 50
    assert looks() == before
    assert max(before) == 1


def test_what_is_removed_leaves_nothing_behind(store: Store) -> None:
    store.add_user("ada", None)
    board = store.add_board("ada", "all")
    record = picture_of("ada", tags=["boat"], settings={"prompt": "the sea"})
    store.add_picture(record)
    store.change_board(board.id, add=[record.id])
    store.remove_picture(record.id)
    assert store.board(board.id).count == 0
    assert store.terms("word", "ada") == []
    store.add_picture(record)
    store.change_board(board.id, add=[record.id])
    assert store.remove_user("ada") == [record]
    assert store.boards() == store.terms("word") == store.pictures() == []


def test_strangers_settings_do_no_harm(store: Store) -> None:
    for settings_of_a_file in (
        {"prompt": ["no text"], "loras": "none", "weights": 3},
        {"prompt": "a\0b \ud800 " + "x" * 10_000, "loras": {"": "", "a\0": ""}, "weights": "\0"},
        {"prompt": " ".join(map(str, range(5000)))},
    ):
        record = picture_of("ada", settings=settings_of_a_file)
        store.add_picture(record)
        assert store.picture(record.id) == record


def test_pictures_of_version_1_are_found(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    with sqlite3.connect(path) as connection:
        connection.executescript((Path(__file__).parent / "version_1.sql").read_text())
        connection.execute("""UPDATE pictures SET settings = '{"prompt": "An old lake", "weights": "tiny"}'""")
    connection.close()
    with Store(sqlite_url(path)) as store:
        (picture,) = store.pictures(search=PictureSearch(words="lake", checkpoint="tiny"))
        assert (picture.favourite, picture.tags, picture.trashed) == (False, [], None)
