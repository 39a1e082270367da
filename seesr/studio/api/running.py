"""A job that an HTTP request waits for: it ends with its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from anyio.to_thread import run_sync
from starlette.requests import Request

from seesr.jobs import JobRequest
from seesr.studio.records import Job, User
from seesr.studio.studio import Studio


async def run_to_end(request: Request, studio: Studio, user: User, job: JobRequest, inputs: Mapping[str, bytes]) -> Job:
    """A job to its end; it is cancelled when the client goes away.

    Raises:
        InputError, LimitError, FullDiskError: as `Studio.submit`.
    """
    submitted = await run_sync(studio.submit, user, job, inputs)
    async with cancelled_with_client(request, studio, user, submitted.id):
        return await studio.finished(user, submitted.id)


@asynccontextmanager
async def cancelled_with_client(request: Request, studio: Studio, user: User, job: str) -> AsyncIterator[None]:
    """Cancels a job when the client goes away within the block; the body of the request is to be read before."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        await run_sync(studio.cancel, user, job)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
