"""Bodies of the native API, which the server and `seesr.client` share; what the studio keeps is in `records.py`."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from seesr.generation.options import MAX_PROMPT
from seesr.jobs import ContentHash, EventKind, JobEvent, JobRequest
from seesr.studio.records import Job, PictureRecord, Role, WebhookEvent

MAX_PRIORITY = 100
MAX_PAGE = 200
"""Jobs or pictures of one answer."""
MAX_ID = 64
"""Characters of an id."""
MAX_TAG, MAX_TAGS = 64, 50
"""Characters of a tag or a board's name, and tags of a picture."""
MAX_PICTURES = 1000
"""Pictures that are changed at once."""
ShortId = Annotated[str, Field(max_length=MAX_ID)]
Line = Annotated[str, Field(min_length=1, max_length=MAX_TAG, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A line of text."""


class Body(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NewJob(Body):
    """A job that is asked for."""

    request: JobRequest
    priority: int = Field(
        default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Higher ones are begun first; above 0 for admins alone."
    )
    webhook: str | None = Field(default=None, max_length=2000, description="Address that is told of the job.")
    webhook_events_filter: tuple[WebhookEvent, ...] | None = Field(
        default=None, min_length=1, max_length=4, description="What it is told; by default everything."
    )


class JobChange(Body):
    """What is changed of a pending job."""

    request: JobRequest | None = Field(default=None, description="Takes the place of the job's settings.")
    priority: int | None = Field(default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)


class Place(Body):
    """A place in the queue."""

    before: str | None = Field(default=None, max_length=MAX_ID, description="Id of a pending job; none: the queue's end.")


class Prune(Body):
    """Which ended jobs are removed."""

    older_than: datetime = Field(description="When they ended, with its time zone.")
    keep_pictures: bool = True


class Pause(Body):
    """Why the queue is paused."""

    reason: str = Field(default="the operator paused it", min_length=1, max_length=200)


class NewUser(Body):
    """Somebody who is let in."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=1000)
    role: Role = "user"


class UserChange(Body):
    """What is changed of a user."""

    role: Role | None = None
    disabled: bool | None = Field(default=None, description="Whether the user is kept out.")


class NewPassword(Body):
    """A password that takes the place of another."""

    password: str = Field(max_length=1000)


class NewKey(Body):
    """A key that is asked for."""

    label: str = Field(default="", max_length=100, description="What it is for.")


class Key(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    label: str
    created: datetime


class FreshKey(BaseModel):
    """A key, the one time that it is shown."""

    key: str


class WebhookSecret(BaseModel):
    """With what webhooks are signed, the one time that it is shown."""

    secret: str


class Uploaded(BaseModel):
    """A picture that jobs may refer to."""

    hash: ContentHash


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]
    next: str | None = Field(description="`before` of the next page; none: this is the last.")


class PicturePage(BaseModel):
    """Pictures, newest first."""

    pictures: list[PictureRecord]
    next: str | None = Field(description="`before` of the next page; none: this is the last.")


class PictureChange(Body):
    """What is changed of a picture."""

    favourite: bool | None = None
    tags: list[Line] | None = Field(default=None, max_length=MAX_TAGS, description="Take the place of its tags.")


class Pictures(Body):
    """Several pictures."""

    pictures: list[ShortId] = Field(max_length=MAX_PICTURES, description="Ids.")


class NewBoard(Body):
    """A board that is asked for."""

    name: Line


class BoardChange(Body):
    """What is changed of a board."""

    name: Line | None = None
    add: list[ShortId] = Field(default=[], max_length=MAX_PICTURES, description="Ids of pictures that come on it.")
    remove: list[ShortId] = Field(default=[], max_length=MAX_PICTURES, description="Ids of pictures that leave it.")


class Removed(BaseModel):
    """How many pictures were removed."""

    removed: int


class Stopped(BaseModel):
    """The jobs that were told to stop."""

    jobs: list[str]


class OptionInfo(BaseModel):
    """An option: what it is, and what it takes."""

    name: str
    help: str
    default: Any
    minimum: float | None
    maximum: float | None
    choices: list[str | int]


class OptionGroups(BaseModel):
    """All options by what they are of."""

    generation: list[OptionInfo]
    upscale: list[OptionInfo]
    reading: list[OptionInfo]
    saving: list[OptionInfo]


class SamplerInfo(BaseModel):
    """A sampler, and its other names."""

    name: str
    aliases: list[str]


class Samplers(BaseModel):
    """Samplers and noise schedules."""

    samplers: list[SamplerInfo]
    schedules: list[str]


class Style(BaseModel):
    """A style of `styles.csv`."""

    name: str
    prompt: str
    negative_prompt: str


class CheckpointFacts(BaseModel):
    """A checkpoint that a job may name, and what it asks for where the job says nothing."""

    name: str
    is_default: bool = Field(description="Whether it is that of jobs that name none.")
    base: str | None = Field(description="Its family, `SD 1` or `SD 2`; null of another one, such as the embedded one's.")
    side: int | None = Field(description="Pixels of the side that it was trained for; null where it does not say so.")
    steps: int
    guidance_scale: float
    problem: str | None = Field(description="Why it cannot be used, in a few words.")


class Prompt(Body):
    """A prompt whose tokens are counted."""

    prompt: str = Field(max_length=MAX_PROMPT)
    checkpoint: str | None = Field(default=None, max_length=500, description="Whose tokenizer; null: the default one's.")


class TokenCount(BaseModel):
    """How long a prompt is."""

    tokens: int = Field(description="Without start and end.")
    limit: int = Field(description="Tokens that are read at once; a longer prompt is read in several parts.")


class DeviceFacts(BaseModel):
    """What a device does."""

    busy: bool
    loaded: list[str] = Field(description="Names of the checkpoints that are loaded.")


class SystemFacts(BaseModel):
    """What the studio runs on."""

    version: str
    python: str
    devices: dict[str, DeviceFacts]
    memory_total: int = Field(description="Bytes of the machine.")
    memory_available: int
    disk_free: int = Field(description="Bytes where pictures are kept.")


class UpscalingModel(BaseModel):
    """The model that enlarges pictures, and how the full one is fetched."""

    name: str = Field(description="`tiny`, `full`, or the name of another folder of weights.")
    embedded: bool = Field(description="It is the small one that comes with SeeSR.")
    missing: int = Field(description="Files of the full model that are not here.")
    megabytes: int = Field(description="Of the full model's files.")
    licence: str = Field(description="Of the full model's base, which must be accepted.")
    licence_page: str
    command: str = Field(description="What fetches the full model, for who runs the server.")


class EventMessage(BaseModel):
    """An event of a job, as a stream sends it."""

    job: str
    sequence: int
    kind: EventKind
    data: dict[str, Any] = {}
    preview: str | None = Field(default=None, description="Of a preview: a JPEG in Base64.")

    @classmethod
    def of(cls, event: JobEvent) -> Self:
        """The message of an event; a finished picture's file is not in it."""
        preview = event.content if event.kind == "preview" else None
        encoded = None if preview is None else base64.b64encode(preview).decode()
        return cls(job=event.job, sequence=event.sequence, kind=event.kind, data=event.data, preview=encoded)

    def event(self) -> JobEvent:
        """The event that it tells of."""
        content = None if self.preview is None else base64.b64decode(self.preview)
        return JobEvent(job=self.job, sequence=self.sequence, kind=self.kind, data=self.data, content=content)


class ErrorDetail(BaseModel):
    """What went wrong, in one sentence, and the kind of error."""

    message: str
    code: str


class ErrorAnswer(BaseModel):
    """The answer of every request that fails."""

    error: ErrorDetail
