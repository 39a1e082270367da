"""The client of a studio for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from seesr.client import calls
from seesr.client.calls import Answer, Call
from seesr.client.connection import ADDRESS, Position, client_settings, has_ended, pause_between, stream_settings
from seesr.client.errors import ClientError, check, check_stream, unreachable
from seesr.jobs import JobEvent, JobRequest
from seesr.studio.api.schemas import FreshKey, JobPage, Key, OptionGroups, PicturePage, Samplers, Style, SystemFacts
from seesr.studio.records import (
    ALL_PICTURES,
    Board,
    Job,
    JobState,
    PictureRecord,
    PictureSearch,
    QueueStatus,
    Role,
    Term,
    TermKind,
    User,
)


class AsyncClient:
    """`Client` for asyncio; the same methods, arguments and errors."""

    def __init__(
        self,
        address: str = ADDRESS,
        key: str | None = None,
        user: tuple[str, str] | None = None,
        timeout: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.address, self._timeout = address, timeout
        self._http = httpx.AsyncClient(**client_settings(address, key, user, timeout, transport))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _send(self, call: Call[Answer], again: bool = True) -> Answer:
        """Sends a request; what changes nothing once more, as a connection that was kept may have been closed meanwhile."""
        try:
            response = await self._http.request(**call.arguments())
        except httpx.TransportError as error:
            if again and call.method == "GET":
                return await self._send(call, again=False)
            raise unreachable(self.address, error) from error
        check(response)
        return call.read(response)

    async def me(self) -> User:
        return await self._send(calls.me())

    async def upload(self, content: bytes) -> str:
        return await self._send(calls.upload(content))

    async def submit(
        self, request: JobRequest, pictures: Iterable[bytes] = (), priority: int = 0, webhook: str | None = None
    ) -> Job:
        for content in pictures:
            await self.upload(content)
        return await self._send(calls.submit(request, priority, webhook))

    async def jobs(
        self,
        states: Collection[JobState] | None = None,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
    ) -> JobPage:
        return await self._send(calls.jobs(states, before, count, of))

    async def job(self, job: str) -> Job:
        return await self._send(calls.job(job))

    async def cancel(self, job: str) -> Job:
        return await self._send(calls.cancel(job))

    async def skip(self, job: str) -> None:
        await self._send(calls.skip(job))

    async def interrupt(self) -> list[str]:
        return await self._send(calls.interrupt())

    async def retry(self, job: str) -> Job:
        return await self._send(calls.retry(job))

    async def change(self, job: str, request: JobRequest | None = None, priority: int | None = None) -> Job:
        return await self._send(calls.change(job, request, priority))

    async def move(self, job: str, before: str | None = None) -> Job:
        return await self._send(calls.move(job, before))

    async def prune(self, older_than: datetime, keep_pictures: bool = True) -> int:
        return await self._send(calls.prune(older_than, keep_pictures))

    async def queue(self) -> QueueStatus:
        return await self._send(calls.queue())

    async def pause(self, reason: str = "the operator paused it") -> QueueStatus:
        return await self._send(calls.pause(reason))

    async def resume(self) -> QueueStatus:
        return await self._send(calls.resume())

    async def events(self, job: str, after: int = 0) -> AsyncIterator[JobEvent]:
        position = Position(after)
        while not position.ended:
            failure: ClientError | None = None
            try:
                async with self._http.stream(**stream_settings(job, position.after, self._timeout)) as response:
                    if not response.is_success:
                        await response.aread()
                        check_stream(response)
                    async for line in response.aiter_lines():
                        if event := position.read(line):
                            yield event
            except httpx.TransportError as error:
                failure = unreachable(self.address, error)
            if not position.ended:
                await asyncio.sleep(position.wait_after(failure))

    async def wait(self, job: str, timeout: float | None = None) -> Job:
        deadline, tries = None if timeout is None else time.monotonic() + timeout, 0
        while not has_ended(current := await self.job(job), deadline):
            await asyncio.sleep(pause_between(tries))
            tries += 1
        return current

    async def pictures(
        self,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
        search: PictureSearch = ALL_PICTURES,
    ) -> PicturePage:
        return await self._send(calls.pictures(before, count, of, search))

    async def picture(self, picture: str) -> PictureRecord:
        return await self._send(calls.picture(picture))

    async def thumbnail(self, picture: str) -> bytes:
        return await self._send(calls.thumbnail(picture))

    async def change_picture(
        self, picture: str, favourite: bool | None = None, tags: Collection[str] | None = None
    ) -> PictureRecord:
        return await self._send(calls.change_picture(picture, favourite, tags))

    async def trash(self, pictures: Collection[str]) -> list[PictureRecord]:
        return await self._send(calls.trash(pictures))

    async def restore(self, pictures: Collection[str]) -> list[PictureRecord]:
        return await self._send(calls.restore(pictures))

    async def empty_trash(self) -> int:
        return await self._send(calls.empty_trash())

    async def terms(self, kind: TermKind, of: str | None = None) -> list[Term]:
        return await self._send(calls.terms(kind, of))

    async def archive(self, search: PictureSearch = ALL_PICTURES, of: str | None = None) -> bytes:
        return await self._send(calls.archive(search, of))

    async def boards(self, picture: str | None = None, of: str | None = None) -> list[Board]:
        return await self._send(calls.boards(picture, of))

    async def board(self, board: str) -> Board:
        return await self._send(calls.board(board))

    async def add_board(self, name: str) -> Board:
        return await self._send(calls.add_board(name))

    async def change_board(
        self, board: str, name: str | None = None, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> Board:
        return await self._send(calls.change_board(board, name, add, remove))

    async def remove_board(self, board: str) -> None:
        await self._send(calls.remove_board(board))

    async def picture_file(self, picture: str) -> bytes:
        return await self._send(calls.picture_file(picture))

    async def remove_picture(self, picture: str) -> None:
        await self._send(calls.remove_picture(picture))

    async def settings(self, content: bytes) -> dict[str, Any]:
        return await self._send(calls.settings(content))

    async def system(self) -> SystemFacts:
        return await self._send(calls.system())

    async def options(self) -> OptionGroups:
        return await self._send(calls.options())

    async def samplers(self) -> Samplers:
        return await self._send(calls.samplers())

    async def styles(self) -> list[Style]:
        return await self._send(calls.styles())

    async def users(self) -> list[User]:
        return await self._send(calls.users())

    async def add_user(self, name: str, password: str, role: Role = "user") -> User:
        return await self._send(calls.add_user(name, password, role))

    async def remove_user(self, name: str) -> None:
        await self._send(calls.remove_user(name))

    async def set_password(self, name: str, password: str) -> None:
        await self._send(calls.set_password(name, password))

    async def export(self, name: str) -> bytes:
        return await self._send(calls.export(name))

    async def list_keys(self) -> list[Key]:
        return await self._send(calls.keys())

    async def add_key(self, label: str = "") -> FreshKey:
        return await self._send(calls.add_key(label))

    async def remove_key(self, key: str) -> None:
        await self._send(calls.remove_key(key))
