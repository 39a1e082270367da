"""Routes of jobs and of the queue."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Form, Path, Query, Request, Response, UploadFile
from pydantic import Json

from seesr.errors import OptionError
from seesr.jobs import ContentHash, content_hash, parse_request
from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.schemas import (
    MAX_ID,
    MAX_PAGE,
    MAX_PRIORITY,
    JobChange,
    JobPage,
    NewJob,
    Pause,
    Place,
    Prune,
    Removed,
    Stopped,
    Uploaded,
)
from seesr.studio.picture_facts import PictureFacts
from seesr.studio.records import Job, JobState, QueueStatus, Webhook, WebhookEvent

router = APIRouter(tags=["jobs"])
UPLOADED_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "The file."}
}
Id = Annotated[str, Path(max_length=MAX_ID)]
Before = Annotated[str | None, Query(max_length=MAX_ID, description="Id of the last one of the page before.")]
Count = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Of = Annotated[str | None, Query(max_length=MAX_ID, description="Whose; none: one's own. For admins: another user, or *.")]


@router.post("/uploads", status_code=201)
def upload(studio: AnyStudio, user: AnyUser, picture: UploadFile) -> Uploaded:
    """Keeps a picture, to which jobs refer by its hash."""
    return Uploaded(hash=studio.upload(user, picture.file.read()))


@router.get("/uploads/{hash}", response_class=Response, responses=UPLOADED_ANSWERS)
def uploaded(studio: AnyStudio, user: AnyUser, hash: Annotated[ContentHash, Path()]) -> Response:
    """A picture that was uploaded, as it was sent."""
    content, media_type = studio.uploaded(user, hash)
    headers = {
        "Cache-Control": "private, max-age=86400",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(content, media_type=media_type, headers=headers)


@router.get("/uploads/{hash}/facts")
def upload_facts(studio: AnyStudio, user: AnyUser, hash: Annotated[ContentHash, Path()]) -> PictureFacts:
    """What the file of an upload says of how it was made: its program, settings, infotext and other texts."""
    return studio.facts_of_upload(user, hash)


@router.post("/jobs", status_code=201)
def submit(studio: AnyStudio, user: AnyUser, connection: Request, job: NewJob) -> Job:
    """Adds a job, of which the pictures are uploaded already."""
    webhook = None
    if job.webhook is not None:
        events = job.webhook_events_filter or get_args(WebhookEvent)
        webhook = Webhook(url=job.webhook, events=events, studio=str(connection.base_url))
    return studio.submit(user, job.request, priority=job.priority, webhook=webhook)


@router.post("/jobs/form", status_code=201)
def submit_form(
    studio: AnyStudio,
    user: AnyUser,
    request: Annotated[Json[dict[str, Any]], Form(description="JSON of the request, without `image` and `mask`.")],
    image: UploadFile | None = None,
    mask: UploadFile | None = None,
    priority: Annotated[int, Form(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0,
) -> Job:
    """Adds a job together with its pictures."""
    files = {"image": image, "mask": mask}
    contents = {name: file.file.read() for name, file in files.items() if file is not None}
    if twice := sorted(contents.keys() & request.keys()):
        raise OptionError(f"{twice[0]} is given as a file and in the request; give it once.")
    names = {name: content_hash(content) for name, content in contents.items()}
    inputs = {names[name]: content for name, content in contents.items()}
    return studio.submit(user, parse_request(request | names), inputs, priority)


@router.get("/jobs")
def jobs(
    studio: AnyStudio,
    user: AnyUser,
    state: Annotated[list[JobState], Query(description="Only jobs in these states.")] = [],  # noqa: B006 as FastAPI has it
    before: Before = None,
    count: Count = 50,
    of: Of = None,
) -> JobPage:
    """Jobs with their pictures, newest first."""
    page = studio.jobs(user, state or None, before, count, of)
    return JobPage(jobs=page, next=page[-1].id if len(page) == count else None)


@router.get("/jobs/{job}")
def job(studio: AnyStudio, user: AnyUser, job: Id) -> Job:
    """A job with its pictures."""
    return studio.job(user, job)


@router.delete("/jobs/{job}")
def cancel(studio: AnyStudio, user: AnyUser, job: Id) -> Job:
    """Ends a job: at once where it is pending, within a call of a network where it runs; its finished pictures stay."""
    return studio.cancel(user, job)


@router.patch("/jobs/{job}")
def change(studio: AnyStudio, user: AnyUser, job: Id, change: JobChange) -> Job:
    """Changes a pending job."""
    if change.request is not None:
        studio.edit(user, job, change.request)
    if change.priority is not None:
        studio.set_priority(user, job, change.priority)
    return studio.job(user, job)


@router.post("/jobs/{job}/retry", status_code=201)
def retry(studio: AnyStudio, user: AnyUser, job: Id) -> Job:
    """Adds a job with the settings of one that has ended."""
    return studio.retry(user, job)


@router.post("/jobs/{job}/skip", status_code=204)
def skip(studio: AnyStudio, user: AnyUser, job: Id) -> Response:
    """Ends the picture that is made at this moment; the job's next one is begun."""
    studio.skip(user, job)
    return Response(status_code=204)


@router.post("/jobs/{job}/move")
def move(studio: AnyStudio, user: AnyUser, job: Id, place: Place) -> Job:
    """Puts a pending job before another one, or at the queue's end."""
    return studio.move(user, job, place.before)


@router.post("/jobs/prune")
def prune(studio: AnyStudio, user: AnyUser, which: Prune) -> Removed:
    """Removes one's own ended jobs; tells how many pictures went with them."""
    return Removed(removed=studio.prune(user, which.older_than, which.keep_pictures))


@router.post("/interrupt")
def interrupt(studio: AnyStudio, user: AnyUser) -> Stopped:
    """Ends those of one's own jobs that run."""
    return Stopped(jobs=studio.interrupt(user))


@router.get("/queue")
def queue(studio: AnyStudio, user: AnyUser) -> QueueStatus:
    """How many jobs wait and run, and whether the queue is paused."""
    del user
    return studio.queue()


@router.post("/queue/pause")
def pause(studio: AnyStudio, user: AnyUser, pause: Pause) -> QueueStatus:
    """Begins no more jobs until the queue is resumed; for admins."""
    return studio.pause(user, pause.reason)


@router.post("/queue/resume")
def resume(studio: AnyStudio, user: AnyUser) -> QueueStatus:
    """Begins jobs again; for admins."""
    return studio.resume(user)
