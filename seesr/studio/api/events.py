"""Routes of events while jobs run: server-sent events (WHATWG HTML, section 9.2) and WebSockets (RFC 6455)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from seesr.jobs import JobEvent
from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.failures import FAILURES_OF_FILES
from seesr.studio.api.jobs import Id
from seesr.studio.api.schemas import EventMessage
from seesr.studio.error_bodies import error_body
from seesr.studio.errors import StudioError

router = APIRouter(tags=["events"])
MAX_SEQUENCE = 2**53
"""Largest whole number that JavaScript has."""
After = Annotated[int, Query(ge=0, le=MAX_SEQUENCE, description="Sequence number of the last event that is known.")]
LastEventId = Annotated[str | None, Header(max_length=20, description="As `after`; a browser sends it by itself.")]


def _last_known(after: After = 0, last_event_id: LastEventId = None) -> int:
    """Sequence number of the last event that the client knows; what a browser sends when it connects again counts more."""
    return int(last_event_id) if last_event_id is not None and last_event_id.isdecimal() else after


LastKnown = Annotated[int, Depends(_last_known)]


def _events(studio: AnyStudio, user: AnyUser, job: Id, after: LastKnown) -> AsyncIterator[JobEvent]:
    """The events of a job of the user's; that it is one is checked before the answer begins."""
    return studio.events_async(user, job, after)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse, responses=FAILURES_OF_FILES)
async def job_events(events: Annotated[AsyncIterator[JobEvent], Depends(_events)]) -> AsyncIterator[ServerSentEvent]:
    """The events of a job until its end, each as a JSON `EventMessage`; first those that were missed."""
    async for event in events:
        yield _sent(event, str(event.sequence))


@router.get("/events", response_class=EventSourceResponse, responses=FAILURES_OF_FILES)
async def all_events(studio: AnyStudio, user: AnyUser) -> AsyncIterator[ServerSentEvent]:
    """The events of all of one's jobs, from now on."""
    async for event in studio.events_of_user(user):
        yield _sent(event, None)


@router.websocket("/jobs/{job}/events")
async def job_socket(
    socket: WebSocket, studio: AnyStudio, user: AnyUser, job: str, after: Annotated[int, Query(ge=0, le=MAX_SEQUENCE)] = 0
) -> None:
    """As the server-sent events, a message each; closed after the job's end."""
    try:
        events = await run_in_threadpool(studio.events_async, user, job, after)
    except StudioError as error:
        await socket.send_denial_response(JSONResponse(error_body(error), error.status))
        return
    await _send(socket, events)


@router.websocket("/events")
async def all_socket(socket: WebSocket, studio: AnyStudio, user: AnyUser) -> None:
    """As the server-sent events of all of one's jobs."""
    await _send(socket, studio.events_of_user(user))


def _sent(event: JobEvent, number: str | None) -> ServerSentEvent:
    return ServerSentEvent(raw_data=EventMessage.of(event).model_dump_json(), id=number)


async def _send(socket: WebSocket, events: AsyncIterator[JobEvent]) -> None:
    """Sends events until they end or the client is gone; what it sends is not read."""
    await socket.accept()

    async def send() -> None:
        async for event in events:
            await socket.send_text(EventMessage.of(event).model_dump_json())
        await socket.close()
        tasks.cancel_scope.cancel()

    async def watch() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
        tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(watch)
    except* WebSocketDisconnect:
        pass
