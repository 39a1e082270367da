"""Who somebody is: passwords (Argon2id, RFC 9106), sessions and keys, and how often one may try.

Secrets of sessions and keys are random, so that a plain SHA-256 of them is kept; a password is hashed slowly. A pair of name
and password that was right is remembered for five minutes, as clients that poll send theirs twice a second.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from seesr.errors import OptionError
from seesr.studio.errors import ConflictError, NotFoundError, TooManyTriesError, UnauthorizedError
from seesr.studio.records import LOCAL, KeyRecord, Role, User
from seesr.studio.settings import as_address, is_address
from seesr.studio.store import Store

KEY_PREFIX = "sk"
REMEMBERED_SECONDS, REMEMBERED_PAIRS = 300, 1000
MIN_PASSWORD, MAX_PASSWORD = 8, 200
"""Characters."""
TRIES_OF_ADDRESS, TRIES_OF_NAME, TRIES_SECONDS = 10, 50, 900
"""Wrong passwords that an address, and a name from all addresses, may have in so many seconds."""
COUNTED = 10_000
"""Addresses and names of which wrong tries are counted, at most."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Accounts:
    """The users of a store, and what they prove themselves with.

    Args:
        hasher: its parameters are those of RFC 9106 for little memory, unless a test wants faster ones.
        clock: seconds, which only grow.
    """

    def __init__(
        self,
        store: Store,
        session_hours: float = 168,
        hasher: PasswordHasher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._clock = store, clock
        self.session_seconds = round(session_hours * 3600)
        self._hasher = hasher or PasswordHasher()
        self._secret = secrets.token_bytes(32)
        self._remembered = OrderedDict[bytes, float]()
        self._addresses, self._names = _Tries(TRIES_OF_ADDRESS, clock), _Tries(TRIES_OF_NAME, clock)
        # One password at a time is hashed: each takes 64 MiB, and no two wrong tries pass the throttle side by side.
        self._hashing = threading.Lock()
        self._hash_of_nobody = self._hasher.hash(secrets.token_hex())

    def has_users(self) -> bool:
        """Whether anybody must log in."""
        return self._store.has_users()

    def users(self) -> list[User]:
        return self._store.users()

    def add_user(self, name: str, password: str | None, role: Role = "user") -> User:
        """Makes a user, who without a password has keys alone. The first one is an admin: else nobody would be.

        Raises:
            OptionError: the name or the password is not allowed.
            ConflictError: there is a user of this name.
        """
        if not _NAME.fullmatch(name) or name == LOCAL:
            raise OptionError(
                f"the user name is {name[:80]!r}; take 1 to 64 letters, digits and . _ @ - (not {LOCAL}, no sign first)."
            )
        digest = None if password is None else self._hash(password)
        if any(user.name.lower() == name.lower() for user in self.users()):
            raise ConflictError(f"there is a user {name!r}; take another name, or remove that one.")
        return self._store.add_user(name, digest, role if self.has_users() else "admin")

    def set_password(self, name: str, password: str) -> None:
        """Changes a password, with which all sessions of the user end.

        Raises:
            OptionError: the password is not allowed.
            NotFoundError: there is no such user.
        """
        self._store.user(name)
        self._store.set_password_hash(name, self._hash(password))
        self._store.remove_sessions_of(name)

    def change_user(self, name: str, role: Role | None = None, disabled: bool | None = None) -> User:
        """Changes what is given of a user; one who is disabled is let in by nothing, and all sessions end.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: no admin would be left who may log in.
        """
        return self._store.change_user(name, role, disabled)

    def ensure_user(self, name: str, password: str) -> User:
        """An admin of this name and password, who is made, or given the password, where that is not so."""
        try:
            user, known = self._store.user(name), self._store.password_hash(name)
        except NotFoundError:
            return self.add_user(name, password, "admin")
        if known is None or not self._is_right(known, password):
            self.set_password(name, password)
        return user

    def log_in(self, name: str, password: str, address: str) -> tuple[User, str]:
        """The user of a name and password, and the token of a new session.

        Raises:
            UnauthorizedError: they are wrong.
            TooManyTriesError: this address, or this name, had too many wrong ones.
        """
        user = self.by_password(name, password, address)
        if user is None:
            raise UnauthorizedError("the name or the password is wrong.")
        token, now = secrets.token_urlsafe(32), datetime.now(UTC)
        self._store.expire_sessions(now)
        self._store.add_session(_digest(token), user.name, now + timedelta(seconds=self.session_seconds))
        return user, token

    def log_out(self, token: str) -> None:
        """Ends a session."""
        self._store.remove_session(_digest(token))

    def by_session(self, token: str) -> User | None:
        """The user of a session that has not ended."""
        session = self._store.session(_digest(token))
        return None if session is None else _enabled(session.user)

    def by_password(self, name: str, password: str, address: str) -> User | None:
        """The user of a name and password that are right.

        Raises:
            TooManyTriesError: this address, or this name, had too many wrong ones.
        """
        user, known = self._find(name)
        pair = self._pair(name, password, known)
        if self._is_remembered(pair):
            return user
        tries = ((self._addresses, _network(address)), (self._names, name.lower()[:64]))
        with self._hashing:
            if self._is_remembered(pair):
                return user
            for counter, key in tries:
                counter.require(key)
            if len(password) <= MAX_PASSWORD and self._is_right(known, password) and user is not None:
                self._remembered[pair] = self._clock() + REMEMBERED_SECONDS
                while len(self._remembered) > REMEMBERED_PAIRS:
                    self._remembered.popitem(last=False)
                return user
            for counter, key in tries:
                counter.add(key)
        return None

    def add_key(self, user: str, label: str = "") -> str:
        """A new key of a user, which is told this once: `sk-ID-SECRET`."""
        self._store.user(user)
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        self._store.add_key(user, key_id, _digest(secret), label[:100])
        return f"{KEY_PREFIX}-{key_id}-{secret}"

    def keys(self, user: str) -> list[KeyRecord]:
        """The keys of a user, without their secrets."""
        keys = self._store.keys(user)
        return [KeyRecord(id=key.id, user=user, label=key.label, created=key.created) for key in keys]

    def remove_key(self, user: str, key_id: str) -> None:
        """Removes a key of a user.

        Raises:
            NotFoundError: the user has none of this id.
        """
        if key_id not in (key.id for key in self._store.keys(user)):
            raise NotFoundError("there is no such key.")
        self._store.remove_key(key_id)

    def by_key(self, key: str) -> User | None:
        """The user of a key."""
        prefix, _, rest = key.partition("-")
        key_id, _, secret = rest.partition("-")
        known = self._store.key(key_id) if prefix == KEY_PREFIX and secret else None
        return _enabled(known.user) if known and hmac.compare_digest(known.key_hash, _digest(secret)) else None

    def _find(self, name: str) -> tuple[User | None, str]:
        try:
            user = _enabled(self._store.user(name))
            return user, (user and self._store.password_hash(name)) or self._hash_of_nobody
        except NotFoundError:
            return None, self._hash_of_nobody

    def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise OptionError(f"the password has {len(password)} characters; it needs {MIN_PASSWORD} to {MAX_PASSWORD}.")
        return self._hasher.hash(_normal(password))

    def _is_right(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, _normal(password))
        except VerifyMismatchError:
            return False

    def _pair(self, name: str, password: str, known: str) -> bytes:
        """Stands for name and password in memory; another one once the user's password is changed."""
        return hashlib.blake2b(repr((name, password, known)).encode(), key=self._secret).digest()

    def _is_remembered(self, pair: bytes) -> bool:
        return self._remembered.get(pair, 0) > self._clock()


class _Tries:
    """Counts wrong tries by key."""

    def __init__(self, allowed: int, clock: Callable[[], float]) -> None:
        self._allowed, self._clock = allowed, clock
        self._times = OrderedDict[str, deque[float]]()

    def require(self, key: str) -> None:
        """Raises TooManyTriesError if this key has had as many as are allowed."""
        times = self._times.get(key)
        wait = times[0] + TRIES_SECONDS - self._clock() if times and len(times) == self._allowed else 0
        if wait > 0:
            raise TooManyTriesError(f"too many wrong passwords; try again in {wait:.0f} s.", int(wait) + 1)

    def add(self, key: str) -> None:
        self._times.setdefault(key, deque(maxlen=self._allowed)).append(self._clock())
        self._times.move_to_end(key)
        while len(self._times) > COUNTED:
            self._times.popitem(last=False)


def _enabled(user: User) -> User | None:
    return None if user.disabled else user


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _normal(password: str) -> bytes:
    """The same bytes whichever way a keyboard composes its letters (Unicode's NFC)."""
    return unicodedata.normalize("NFC", password).encode(errors="surrogatepass")


def _network(address: str) -> str:
    """An address; of version 6 the network of 64 bits, in all of which a client can choose its own."""
    if not is_address(address):
        return address
    parsed = as_address(address)
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, 64), strict=False))
