"""Users in the store, with their keys, sessions and remembered settings; of secrets, hashes alone are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.records import PictureRecord, Record, Role, User
from seesr.studio.store.database import Database, lock_queue, row_of
from seesr.studio.store.pictures import delete_pictures
from seesr.studio.store.tables import (
    BoardRow,
    InputRow,
    JobRow,
    KeyRow,
    PictureRow,
    SessionRow,
    SettingRow,
    SubmissionRow,
    TurnRow,
    UserRow,
    WebhookSecretRow,
    now,
)


class KeyRecord(Record):
    """An API key."""

    id: str
    """Stands in the key itself, so that its hash is found."""
    user: User
    label: str
    created: datetime
    key_hash: str = Field(exclude=True, repr=False)


class SessionRecord(Record):
    """A browser that is logged in."""

    token_hash: str = Field(exclude=True, repr=False)
    user: User
    expires: datetime


class UserStore(Database):
    """Users and what belongs to them."""

    def add_user(self, name: str, password_hash: str | None, role: Role = "user") -> User:
        """Adds a user; one without a password has keys alone.

        Raises:
            ConflictError: there is a user of this name.
        """
        with self._write() as session:
            if session.get(UserRow, name):
                raise ConflictError(f"there is a user {name!r} already; choose another name, or remove that one first.")
            session.add(UserRow(name=name, password_hash=password_hash, role=role, created=now()))
        return User(name=name, role=role)

    def user(self, name: str) -> User:
        """A user.

        Raises:
            NotFoundError: there is no such user.
        """
        with self._read() as session:
            return _user(_row(session, name))

    def users(self) -> list[User]:
        """All users, by name."""
        with self._read() as session:
            return [_user(row) for row in session.scalars(select(UserRow).order_by(UserRow.name))]

    def has_users(self) -> bool:
        """Whether there is a user."""
        with self._read() as session:
            return session.scalar(select(exists().select_from(UserRow))) or False

    def change_user(self, name: str, role: Role | None = None, disabled: bool | None = None) -> User:
        """Changes what is given of a user; the sessions of one who is disabled end.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: no admin would be left who may log in.
        """
        with self._write() as session:
            lock_queue(session)
            row = _row(session, name)
            row.role = role or row.role
            row.disabled = row.disabled if disabled is None else disabled
            session.flush()
            if not session.scalar(select(exists().where(UserRow.role == "admin", UserRow.disabled.is_(False)))):
                raise ConflictError(f"{name!r} is the only admin who may log in; make another user one first.")
            if row.disabled:
                session.execute(delete(SessionRow).where(SessionRow.user == name))
            return _user(row)

    def remove_user(self, name: str) -> list[PictureRecord]:
        """Removes a user with all jobs, pictures, uploads, keys, sessions and settings.

        Returns:
            the pictures, whose files remain to be removed.

        Raises:
            NotFoundError: there is no such user.
            ConflictError: a job of the user's runs.
        """
        with self._write() as session:
            lock_queue(session)
            row = _row(session, name)
            if session.scalar(select(exists().where(JobRow.user == name, JobRow.state == "running"))):
                raise ConflictError(f"a job of the user {name!r} runs; interrupt it first.")
            removed = delete_pictures(session, PictureRow.user == name)
            for table in (JobRow, InputRow, BoardRow, SettingRow, SubmissionRow, TurnRow, WebhookSecretRow):
                session.execute(delete(table).where(table.user == name))
            session.delete(row)
            return removed

    def password_hash(self, name: str) -> str | None:
        """The hash of a user's password; None of a user without one, and of a name without a user."""
        with self._read() as session:
            return session.scalar(select(UserRow.password_hash).where(UserRow.name == name))

    def set_password_hash(self, name: str, password_hash: str | None) -> None:
        """Changes the hash of a user's password.

        Raises:
            NotFoundError: there is no such user.
        """
        with self._write() as session:
            _row(session, name).password_hash = password_hash

    def add_key(self, user: str, key_id: str, key_hash: str, label: str) -> KeyRecord:
        """Adds an API key.

        Raises:
            NotFoundError: there is no such user.
        """
        with self._write() as session:
            owner = _row(session, user)
            row = KeyRow(id=key_id, user=user, key_hash=key_hash, label=label, created=now())
            session.add(row)
            return _key(row, owner)

    def key(self, key_id: str) -> KeyRecord | None:
        """A key with its hash and user; None where there is no such key."""
        with self._read() as session:
            row = session.execute(select(KeyRow, UserRow).join(UserRow).where(KeyRow.id == key_id)).first()
            return None if row is None else _key(*row)

    def keys(self, user: str) -> list[KeyRecord]:
        """The keys of a user, the oldest first."""
        with self._read() as session:
            query = select(KeyRow, UserRow).join(UserRow).where(KeyRow.user == user).order_by(KeyRow.created, KeyRow.id)
            return [_key(*row) for row in session.execute(query)]

    def remove_key(self, key_id: str) -> None:
        """Removes a key.

        Raises:
            NotFoundError: there is no such key.
        """
        with self._write() as session:
            session.delete(row_of(session, KeyRow, key_id, "key"))

    def add_session(self, token_hash: str, user: str, expires: datetime) -> None:
        """Keeps a session until it expires.

        Raises:
            NotFoundError: there is no such user.
        """
        with self._write() as session:
            _row(session, user)
            session.add(SessionRow(token_hash=token_hash, user=user, expires=expires))

    def session(self, token_hash: str) -> SessionRecord | None:
        """A session with its user; None where there is none, or it has expired."""
        with self._read() as session:
            query = select(SessionRow, UserRow).join(UserRow).where(SessionRow.token_hash == token_hash)
            row = session.execute(query.where(SessionRow.expires > now())).first()
            if row is None:
                return None
            return SessionRecord(token_hash=token_hash, user=_user(row[1]), expires=row[0].expires)

    def remove_session(self, token_hash: str) -> None:
        """Ends a session, where there is one."""
        with self._write() as session:
            session.execute(delete(SessionRow).where(SessionRow.token_hash == token_hash))

    def remove_sessions_of(self, user: str) -> None:
        """Ends all sessions of a user."""
        with self._write() as session:
            session.execute(delete(SessionRow).where(SessionRow.user == user))

    def expire_sessions(self, moment: datetime) -> None:
        """Removes the sessions that have expired by a moment."""
        with self._write() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires <= moment))

    def setting(self, user: str, name: str) -> Any:
        """A JSON value that is remembered for a user; None where there is none."""
        with self._read() as session:
            return session.scalar(select(SettingRow.value).where(SettingRow.user == user, SettingRow.name == name))

    def set_setting(self, user: str, name: str, value: Any) -> None:
        """Remembers a JSON value for a user; None forgets it."""
        with self._write() as session:
            if value is None:
                session.execute(delete(SettingRow).where(SettingRow.user == user, SettingRow.name == name))
            else:
                session.merge(SettingRow(user=user, name=name, value=value))

    def forget_settings(self, user: str, prefix: str) -> None:
        """Forgets the values of a user whose names begin so."""
        with self._write() as session:
            begins = SettingRow.name.startswith(prefix, autoescape=True)
            session.execute(delete(SettingRow).where(SettingRow.user == user, begins))


def _row(session: Session, name: str) -> UserRow:
    row = session.get(UserRow, name)
    if row is None:
        raise NotFoundError(f"there is no user {name!r}; list the users to see their names.")
    return row


def _user(row: UserRow) -> User:
    return User(name=row.name, role=row.role, disabled=row.disabled)


def _key(row: KeyRow, user: UserRow) -> KeyRecord:
    return KeyRecord(id=row.id, user=_user(user), label=row.label, created=row.created, key_hash=row.key_hash)
