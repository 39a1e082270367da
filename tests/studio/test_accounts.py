"""Accounts: what is remembered, what is kept, and how often one may try."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from studio_server import FAST_HASHER, PASSWORD

from seesr.errors import OptionError
from seesr.studio.accounts import REMEMBERED_SECONDS, TRIES_OF_ADDRESS, TRIES_OF_NAME, TRIES_SECONDS, Accounts
from seesr.studio.errors import ConflictError, NotFoundError, TooManyTriesError, UnauthorizedError
from seesr.studio.records import User
from seesr.studio.store import Store

BOB = User(name="bob")


class CountingHasher(PasswordHasher):
    """Counts how many passwords are hashed."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified = 0

    def verify(self, *arguments: object) -> bool:
        self.verified += 1
        return super().verify(*arguments)  # pyright: ignore[reportArgumentType]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'studio.db'}") as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def accounts(store: Store, hasher: CountingHasher, clock: Clock) -> Accounts:
    made = Accounts(store, hasher=hasher, clock=clock)
    made.add_user("ada", PASSWORD)
    made.add_user("bob", PASSWORD)
    return made


def test_first_user_is_an_admin(accounts: Accounts) -> None:
    assert [(user.name, user.role) for user in accounts.users()] == [("ada", "admin"), ("bob", "user")]


@pytest.mark.parametrize("name", ["", "local", "../x", "a/b", "a\n", "-a", "é", "x" * 65, "a:b"])
def test_names_that_are_not_taken(accounts: Accounts, name: str) -> None:
    with pytest.raises(OptionError, match="user name"):
        accounts.add_user(name, PASSWORD)


def test_names_differ_by_more_than_case(accounts: Accounts) -> None:
    with pytest.raises(ConflictError, match="there is a user 'Bob'"):
        accounts.add_user("Bob", PASSWORD)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 201])
def test_passwords_that_are_not_taken(accounts: Accounts, password: str) -> None:
    with pytest.raises(OptionError, match=f"the password has {len(password)} characters; it needs 8 to 200"):
        accounts.add_user("carl", password)


def test_right_pair_is_hashed_once_in_five_minutes(accounts: Accounts, hasher: CountingHasher, clock: Clock) -> None:
    for _ in range(600):
        assert accounts.by_password("bob", PASSWORD, "10.0.0.1") == BOB
    assert hasher.verified == 1
    clock.now += REMEMBERED_SECONDS + 1
    assert accounts.by_password("bob", PASSWORD, "10.0.0.1") == BOB
    assert hasher.verified == 2
    accounts.set_password("bob", "another one")
    assert accounts.by_password("bob", PASSWORD, "10.0.0.1") is None
    assert accounts.by_password("bob", "another one", "10.0.0.1") == BOB


def test_same_letters_composed_otherwise_are_the_same_password(accounts: Accounts) -> None:
    accounts.set_password("bob", "pa\u0308ssword")
    assert accounts.by_password("bob", "p\u00e4ssword", "10.0.0.1") == BOB
    assert accounts.by_password("bob", "\ud800" * 9, "10.0.0.1") is None


def test_wrong_passwords_of_an_address_are_throttled(accounts: Accounts, hasher: CountingHasher, clock: Clock) -> None:
    for number in range(TRIES_OF_ADDRESS):
        name = ("bob", "nobody")[number % 2]  # a name that nobody has takes as long, and counts
        with pytest.raises(UnauthorizedError, match="the name or the password is wrong"):
            accounts.log_in(name, "guess" * 2, f"2001:db8::{number}")
    assert hasher.verified == TRIES_OF_ADDRESS
    with pytest.raises(TooManyTriesError, match="try again in 900 s") as caught:
        accounts.log_in("bob", PASSWORD, "2001:db8::ffff")
    assert caught.value.retry_after == 901
    assert hasher.verified == TRIES_OF_ADDRESS
    # Others are not shut out, nor is who was in before.
    assert accounts.by_password("bob", PASSWORD, "2001:db8:0:1::1") == BOB
    assert accounts.by_password("bob", PASSWORD, "2001:db8::1") == BOB
    clock.now += TRIES_SECONDS
    assert accounts.log_in("ada", PASSWORD, "2001:db8::1")[0].name == "ada"


def test_wrong_passwords_of_a_name_are_throttled(accounts: Accounts) -> None:
    for number in range(TRIES_OF_NAME):
        assert accounts.by_password("bob", "wrong one", f"10.0.0.{number}") is None
    with pytest.raises(TooManyTriesError):
        accounts.by_password("BOB", "wrong one", "10.0.1.1")
    assert accounts.by_password("ada", PASSWORD, "10.0.1.1") is not None


def test_sessions_end(store: Store, accounts: Accounts) -> None:
    user, token = accounts.log_in("bob", PASSWORD, "10.0.0.1")
    assert accounts.by_session(token) == user == BOB
    assert accounts.by_session(token + "x") is None
    accounts.log_out(token)
    assert accounts.by_session(token) is None
    short = Accounts(store, session_hours=1e-9, hasher=FAST_HASHER)
    assert short.by_session(short.log_in("bob", PASSWORD, "10.0.0.1")[1]) is None
    _, token = accounts.log_in("bob", PASSWORD, "10.0.0.1")
    store.expire_sessions(datetime.now(UTC) + timedelta(days=8))
    assert accounts.by_session(token) is None


def test_keys_are_of_their_users(accounts: Accounts) -> None:
    key = accounts.add_key("bob", "laptop")
    assert key.startswith("sk-")
    assert accounts.by_key(key) == BOB
    for wrong in ("", "sk-", key[:-1], key + "x", key.replace("sk-", "sk_"), "x" + key):
        assert accounts.by_key(wrong) is None
    (kept,) = accounts.keys("bob")
    assert (kept.label, kept.id) == ("laptop", key.split("-")[1])
    with pytest.raises(NotFoundError, match="no such key"):
        accounts.remove_key("ada", kept.id)
    accounts.remove_key("bob", kept.id)
    assert accounts.by_key(key) is None


def test_user_without_a_password_has_keys_alone(accounts: Accounts) -> None:
    accounts.add_user("robot", None)
    assert accounts.by_password("robot", "", "10.0.0.1") is None
    assert accounts.by_key(accounts.add_key("robot")) == User(name="robot")


def test_ensured_admin_keeps_sessions_unless_the_password_is_new(accounts: Accounts) -> None:
    _, token = accounts.log_in("ada", PASSWORD, "10.0.0.1")
    accounts.ensure_user("ada", PASSWORD)
    assert accounts.by_session(token) is not None
    accounts.ensure_user("ada", "another one")
    assert accounts.by_session(token) is None
    assert accounts.ensure_user("carl", PASSWORD).is_admin


def test_no_secret_is_kept(accounts: Accounts, tmp_path: Path) -> None:
    key, (_, token) = accounts.add_key("bob"), accounts.log_in("bob", PASSWORD, "10.0.0.1")
    content = "\n".join(sqlite3.connect(tmp_path / "studio.db").iterdump())
    assert "$argon2id$" in content
    for secret in (key.split("-", 2)[2], token, PASSWORD):
        assert secret not in content
