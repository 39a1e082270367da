"""Routes of the models: what is there, what can be fetched, and for admins fetching, removing and verifying."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field
from starlette.requests import HTTPConnection

from seesr.errors import OptionError
from seesr.jobs import GenerationRequest, JobRequest
from seesr.models.catalogue import CatalogueEntry, parse_source
from seesr.models.contents import Kind
from seesr.models.listing import MAX_NAME, ModelInfo
from seesr.models.manager import Verified
from seesr.models.pulls import PULL_ENDED, Pull, Pulls
from seesr.studio.api.dependencies import Admin, AnyStudio, AnyUser
from seesr.studio.api.events import LastKnown
from seesr.studio.api.failures import FAILURES_OF_FILES
from seesr.studio.api.jobs import Id
from seesr.studio.api.schemas import MAX_PAGE, Body
from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.studio import Studio
from seesr.studio.thumbnails import make_thumbnail

router = APIRouter(prefix="/models", tags=["models"])
POLL_SECONDS = 0.3
"""Between two looks at a pull whose events somebody reads."""
MAX_PATH = 500
PREVIEW_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture."}
}


class PullRequest(Body):
    """A model that is to be fetched."""

    source: str = Field(
        max_length=2000,
        description="A name of the catalogue, `owner/name[@revision][:file.safetensors]` of the hub, or an https address.",
    )
    sha256: str | None = Field(default=None, max_length=66, description="Of the file; an address needs it.")
    kind: Kind | None = Field(default=None, description="What it must be; none: what it is.")
    name: str | None = Field(default=None, max_length=MAX_NAME, description="What it is called here.")
    accept_licence: bool = Field(default=False, description="Its licence was read and is accepted.")


class PullPlan(Body):
    """What would be fetched."""

    source: str
    name: str
    size: int = Field(description="Bytes; 0 where they are not known beforehand.")
    revision: str | None
    licence: str | None
    licence_page: str | None
    must_accept: bool = Field(description="Whether the licence must be accepted; one that was is not asked for again.")


class VerifyRequest(Body):
    """Which models are verified."""

    kind: Kind | None = None
    name: str | None = Field(default=None, max_length=MAX_PATH, description="One model of the kind.")


def _pulls(connection: HTTPConnection) -> Pulls:
    return connection.app.state.pulls


AnyPulls = Annotated[Pulls, Depends(_pulls)]
ModelName = Annotated[str, Path(max_length=MAX_PATH)]


@router.get("")
def models(pulls: AnyPulls, user: AnyUser, kind: Annotated[Kind | None, Query()] = None) -> list[ModelInfo]:
    """The models, by kind and name."""
    del user
    return pulls.manager.list_models(kind)


@router.get("/catalogue")
def catalogue(pulls: AnyPulls, user: AnyUser) -> list[CatalogueEntry]:
    """Well-known models that can be fetched by name."""
    del user
    return pulls.manager.catalogue()


@router.post("/plans")
def plan(pulls: AnyPulls, admin: Admin, wanted: PullRequest) -> PullPlan:
    """What would be fetched, and under which licence; for admins."""
    del admin
    made = pulls.manager.plan(parse_source(wanted.source, wanted.sha256))
    return PullPlan(
        source=made.source,
        name=wanted.name or made.name,
        size=made.size,
        revision=made.revision,
        licence=made.licence,
        licence_page=made.licence_page,
        must_accept=made.must_accept,
    )


@router.post("/pulls", status_code=202)
def start_pull(pulls: AnyPulls, admin: Admin, wanted: PullRequest) -> Pull:
    """Fetches a model when those before are done; for admins."""
    source = parse_source(wanted.source, wanted.sha256)
    return pulls.start(source, admin.name, wanted.kind, wanted.name, wanted.accept_licence)


@router.get("/pulls")
def all_pulls(pulls: AnyPulls, admin: Admin) -> list[Pull]:
    """Models that are fetched, wait for it, or were fetched lately, the newest last; for admins."""
    del admin
    return pulls.pulls()


@router.get("/pulls/{pull}")
def one_pull(pulls: AnyPulls, admin: Admin, pull: Id) -> Pull:
    """How far a model is; for admins."""
    del admin
    return _pull(pulls, pull)


@router.post("/pulls/{pull}/retry", status_code=202)
def retry_pull(pulls: AnyPulls, admin: Admin, pull: Id) -> Pull:
    """Fetches a model once more whose pull failed or was cancelled, after what is there; for admins."""
    if _pull(pulls, pull).state not in ("failed", "cancelled"):
        raise ConflictError("only a pull that failed or was cancelled can be retried.")
    return pulls.retry(pull, admin.name)


@router.delete("/pulls/{pull}", status_code=204)
def cancel_pull(pulls: AnyPulls, admin: Admin, pull: Id) -> Response:
    """Ends fetching a model; what was fetched is kept for the next time. For admins."""
    del admin
    _pull(pulls, pull)
    pulls.cancel(pull)
    return Response(status_code=204)


def _states(pulls: AnyPulls, admin: Admin, pull: Id, after: LastKnown) -> AsyncIterator[Pull]:
    """The states of a pull; that it is one is checked before the answer begins."""
    del admin
    _pull(pulls, pull)
    return _follow(pulls, pull, after)


@router.get("/pulls/{pull}/events", response_class=EventSourceResponse, responses=FAILURES_OF_FILES)
async def pull_events(states: Annotated[AsyncIterator[Pull], Depends(_states)]) -> AsyncIterator[ServerSentEvent]:
    """How far a model is until its end, each time as a JSON `Pull`; for admins."""
    async for state in states:
        yield ServerSentEvent(raw_data=state.model_dump_json(), id=str(state.sequence))


@router.post("/verify")
def verify(pulls: AnyPulls, admin: Admin, wanted: VerifyRequest) -> list[Verified]:
    """Compares files with the SHA-256 that was recorded when they were fetched or added; for admins."""
    del admin
    if wanted.name is not None and wanted.kind is None:
        raise OptionError("give the kind of the model beside its name.")
    if wanted.kind is not None and wanted.name is not None:
        _model(pulls, wanted.kind, wanted.name)
    return list(pulls.manager.verify(wanted.kind, wanted.name))


@router.get("/previews/{kind}/{name:path}", response_class=Response, responses=PREVIEW_ANSWERS)
def preview(pulls: AnyPulls, studio: AnyStudio, user: AnyUser, kind: Kind, name: ModelName) -> Response:
    """The picture beside a model's file, as a WebP of at most 384 pixels a side."""
    del user
    try:
        content = pulls.manager.preview(kind, name)
    except OptionError as error:
        raise NotFoundError(str(error)) from None
    studio.check_picture(content)
    headers = {"Cache-Control": "private, max-age=600", "X-Content-Type-Options": "nosniff"}
    return Response(make_thumbnail(content), media_type="image/webp", headers=headers)


@router.get("/{kind}/{name:path}")
def model(pulls: AnyPulls, user: AnyUser, kind: Kind, name: ModelName) -> ModelInfo:
    """One model."""
    del user
    return _model(pulls, kind, name)


@router.delete("/{kind}/{name:path}", status_code=204)
def remove(pulls: AnyPulls, studio: AnyStudio, admin: Admin, kind: Kind, name: ModelName) -> Response:
    """Removes a model that no job uses; for admins."""
    del admin
    found = _model(pulls, kind, name)
    if use := in_use(studio, kind, found.name):
        raise ConflictError(f"{found.name} is in use: {use}; remove it when that has ended.")
    pulls.manager.remove(kind, found.name)
    return Response(status_code=204)


def in_use(studio: Studio, kind: Kind, name: str) -> str:
    """What uses a model: a worker that has it loaded, or a job that runs or waits; empty where nothing does."""
    short = name.rpartition("/")[2]
    if kind == "checkpoints":
        for device, worker in studio.dispatcher.workers.items():
            if {name, short} & set(worker.loaded()):
                return f"the worker on {device} has it loaded"
    count = sum(_names(request, kind, name, short) for request in _active(studio))
    return f"{count} jobs that run or wait name it" if count else ""


def _active(studio: Studio) -> Iterator[JobRequest]:
    before = None
    while jobs := studio.store.jobs(states=("pending", "running"), before=before, count=MAX_PAGE):
        yield from (job.request for job in jobs)
        before = jobs[-1].id


def _names(request: JobRequest, kind: Kind, *names: str) -> bool:
    """Whether a job names a model; of LoRAs and embeddings whether the name stands anywhere in its prompts."""
    if not isinstance(request, GenerationRequest):
        return False
    if kind == "checkpoints":
        return request.checkpoint in names
    if kind == "vae":
        return request.vae in names
    if kind == "controlnet":
        return any(unit.name in names for unit in request.controls)
    text = f"{request.options.prompt}\n{request.options.negative_prompt}\n{request.options.loras}".lower()
    return any(name.lower() in text for name in names)


def _model(pulls: Pulls, kind: Kind, name: str) -> ModelInfo:
    try:
        return pulls.manager.info(kind, name)
    except OptionError as error:
        raise NotFoundError(str(error)) from None


def _pull(pulls: Pulls, id: str) -> Pull:
    try:
        return pulls.pull(id)
    except OptionError as error:
        raise NotFoundError(str(error)) from None


async def _follow(pulls: Pulls, id: str, after: int) -> AsyncIterator[Pull]:
    """As `Pulls.events`, without a thread for each reader."""
    while True:
        state = pulls.pull(id)
        if state.sequence > after:
            after = state.sequence
            yield state
        if state.state in PULL_ENDED:
            return
        await anyio.sleep(POLL_SECONDS)
