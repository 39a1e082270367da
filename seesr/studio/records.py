"""What the studio keeps, as its parts and its clients see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from seesr.jobs import JobRequest
from seesr.options import SaveOptions

JobState = Literal["pending", "running", "done", "failed", "cancelled", "interrupted"]
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled", "interrupted")
"""States in which a job stays; `interrupted` is one that ran when the server or the worker died."""
Role = Literal["admin", "user"]
LOCAL = "local"
"""Name of the admin that everybody is where there are no users."""


class Record(BaseModel):
    """Base of the records."""

    model_config = ConfigDict(frozen=True)


class User(Record):
    """Somebody who may use the studio."""

    name: str
    role: Role = "user"
    disabled: bool = False
    """Is not let in, by session, password or key."""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


class Preferences(Record):
    """What a user has chosen for the page."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = Field(default=None, pattern="^[a-z]{2}$", description="None: what the browser asks for.")
    theme: Literal["light", "dark"] | None = Field(default=None, description="None: as the machine has it.")
    saving: SaveOptions = Field(default=SaveOptions(), description="How pictures are written where a tab does not say.")
    welcomed: bool = Field(default=False, description="The first-run message was dismissed.")


class KeyRecord(Record):
    """A key of a user, without its secret."""

    id: str
    user: str
    label: str = ""
    created: datetime


WebhookEvent = Literal["start", "output", "logs", "completed"]


class Webhook(Record):
    """Whom a job is told to by HTTP, and what of it."""

    url: str = Field(max_length=2000)
    events: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
    studio: str = ""
    """Address by which the client reached the studio, with which the addresses of the pictures begin."""


class PictureRecord(Record):
    """A finished picture; its file is found by its id."""

    id: str
    job: str | None
    """None of one that was imported."""
    user: str
    index: int
    """Its place among the pictures of its job."""
    created: datetime
    width: int
    height: int
    media_type: str
    size: int
    """Bytes."""
    digest: str
    """SHA-256 of the file."""
    settings: dict[str, Any] = {}
    """`Result.settings()`; of one that was imported what its file says, with A1111's infotext as `infotext`."""
    tags: list[str] = []
    """The user's own, which begin with what RAM found in the input of an upscaled picture."""
    favourite: bool = False
    trashed: datetime | None = Field(default=None, description="When it was put into the trash.")


class PictureSearch(Record):
    """Which pictures are listed; case does not count."""

    words: str = ""
    """Words that all stand in the prompt."""
    tags: tuple[str, ...] = ()
    """All of them."""
    lora: str | None = None
    checkpoint: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Made before this moment."""
    favourite: bool = False
    """Favourites alone."""
    board: str | None = None
    """Id of a board."""
    ids: tuple[str, ...] = ()
    """These alone, where any are given."""
    trash: bool = False
    """The trash in place of what is not in it."""


ALL_PICTURES = PictureSearch()
"""Every picture outside the trash."""


TermKind = Literal["word", "tag", "lora", "checkpoint"]
"""What pictures are found by."""


class Term(Record):
    """Something that a user's pictures are found by, and how many are."""

    name: str
    count: int


class Board(Record):
    """A collection of a user's pictures."""

    id: str
    user: str
    name: str
    created: datetime
    count: int = 0
    """Pictures on it, without those in the trash."""
    cover: str | None = None
    """Id of its newest picture."""


class Job(Record):
    """A job, and what became of it."""

    id: str
    user: str
    state: JobState
    request: JobRequest
    priority: int = 0
    """Higher ones are begun first; only an admin raises it."""
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    device: str | None = None
    error: str | None = None
    """One sentence, of a job that failed."""
    notes: list[str] = []
    result: dict[str, Any] = {}
    """What it found, of the task `tags`; seconds of the stages and the memory plan, of others."""
    retry_of: str | None = None
    webhook: Webhook | None = None
    pictures: list[PictureRecord] = []
    ahead: int | None = Field(default=None, description="Jobs that are begun before it, of a pending one.")


class QueueStatus(Record):
    """The queue, without anything of a user's jobs."""

    paused: bool
    reason: str | None = None
    """Why it is paused: the operator, or a full disk."""
    pending: int
    running: int
