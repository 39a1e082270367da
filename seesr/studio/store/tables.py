"""The store's tables, on SQLite and PostgreSQL alike. After a change here, add a migration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, Double, ForeignKey, Index, MetaData, String, UniqueConstraint, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from seesr.studio.records import JobState, Role, TermKind


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, kept as UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


class Table(DeclarativeBase):
    """Base of the tables."""

    # Named, so that a migration can change them on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime(),
        float: Double(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        JobState: String(),
        Role: String(),
        TermKind: String(),
    }


class QueueRow(Table):
    """The queue as a whole: one row, which whoever changes the queue locks."""

    __tablename__ = "queue"

    id: Mapped[int] = mapped_column(primary_key=True)
    paused: Mapped[str | None]
    """Why it is paused; NULL of one that runs."""
    turn: Mapped[int]
    """Jobs begun so far."""


class JobRow(Table):
    """A job. Its user needs no row of its own: where there are no users, it is `local`."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "state", "priority", "position"), Index(None, "user", "number"))

    number: Mapped[int] = mapped_column(primary_key=True)
    """Rises with each job: the order of lists."""
    id: Mapped[str] = mapped_column(unique=True)
    user: Mapped[str]
    state: Mapped[JobState]
    task: Mapped[str]
    request: Mapped[dict[str, Any]]
    priority: Mapped[int]
    position: Mapped[int]
    """Place in the queue, of a pending one."""
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    device: Mapped[str | None]
    error: Mapped[str | None]
    notes: Mapped[list[str]]
    result: Mapped[dict[str, Any]]
    retry_of: Mapped[str | None]
    webhook: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    webhook_tries: Mapped[int] = mapped_column(server_default="0")
    webhook_due: Mapped[datetime | None] = mapped_column(index=True)
    """When its end is told next, as soon as it has ended; NULL of one whose end was told, or is told to nobody."""


class JobInputRow(Table):
    """A picture that a job takes."""

    __tablename__ = "job_inputs"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)


class TurnRow(Table):
    """When a user's last job was begun, counted in jobs: who waits longest is next."""

    __tablename__ = "turns"

    user: Mapped[str] = mapped_column(primary_key=True)
    turn: Mapped[int]


class SubmissionRow(Table):
    """A job that was asked for within the last hour; it stays when the job is pruned."""

    __tablename__ = "submissions"
    __table_args__ = (Index(None, "user", "created"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(unique=True)
    user: Mapped[str]
    created: Mapped[datetime]
    megapixels: Mapped[float]


class PictureRow(Table):
    """A finished picture. It outlives its job where that is pruned alone."""

    __tablename__ = "pictures"
    __table_args__ = (
        UniqueConstraint("job", "index"),
        Index(None, "user", "created", "number"),
        Index(None, "user", "favourite", "created", "number"),
        Index(None, "user", "digest"),
    )

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    user: Mapped[str]
    index: Mapped[int]
    created: Mapped[datetime] = mapped_column(index=True)
    width: Mapped[int]
    height: Mapped[int]
    media_type: Mapped[str]
    size: Mapped[int]
    digest: Mapped[str]
    settings: Mapped[dict[str, Any]]
    tags: Mapped[list[str]]
    favourite: Mapped[bool]
    trashed: Mapped[datetime | None] = mapped_column(index=True)
    """When it was put into the trash."""


class TermRow(Table):
    """What a picture is found by: a word of its prompt, a tag, a LoRA, its checkpoint."""

    __tablename__ = "terms"
    __table_args__ = (Index(None, "picture"),)

    kind: Mapped[TermKind] = mapped_column(primary_key=True)
    term: Mapped[str] = mapped_column(primary_key=True)
    """Without case."""
    picture: Mapped[int] = mapped_column(ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=True)


class BoardRow(Table):
    """A collection of a user's pictures."""

    __tablename__ = "boards"
    __table_args__ = (UniqueConstraint("user", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str]
    name: Mapped[str]
    created: Mapped[datetime]


class BoardPictureRow(Table):
    """A picture on a board."""

    __tablename__ = "board_pictures"

    board: Mapped[str] = mapped_column(ForeignKey("boards.id", ondelete="CASCADE"), primary_key=True)
    picture: Mapped[int] = mapped_column(ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=True, index=True)


class InputRow(Table):
    """A picture that a user has uploaded and may name in requests."""

    __tablename__ = "inputs"

    user: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    created: Mapped[datetime]


class UserRow(Table):
    """Somebody who may log in."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    password_hash: Mapped[str | None]
    role: Mapped[Role]
    created: Mapped[datetime]
    disabled: Mapped[bool] = mapped_column(server_default=false())
    """May not log in."""


class KeyRow(Table):
    """An API key of a user; the key itself is not kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), index=True)
    key_hash: Mapped[str]
    label: Mapped[str]
    created: Mapped[datetime]


class SessionRow(Table):
    """A browser that is logged in; the token itself is not kept."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), index=True)
    expires: Mapped[datetime] = mapped_column(index=True)


class WebhookSecretRow(Table):
    """With what the webhooks of a user are signed. Kept as it is: a hash cannot sign."""

    __tablename__ = "webhook_secrets"

    user: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[str]


class SettingRow(Table):
    """A value that the studio remembers for a user, such as what a form last held."""

    __tablename__ = "settings"

    user: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Any] = mapped_column(JSON())


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)
