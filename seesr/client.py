"""Clients of a studio: its native API with types, blocking and asynchronous.

from seesr.client import Client

with Client("http://127.0.0.1:7860") as studio:
    job = studio.wait(studio.submit(GenerationRequest(options=GenerationOptions(prompt="a cat"))).id)
    content = studio.picture_file(job.pictures[0].id)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from seesr.errors import SeeSRError, first_line
from seesr.jobs import ENDS, JobEvent, JobRequest
from seesr.studio.api.schemas import (
    ErrorAnswer,
    EventMessage,
    FreshKey,
    JobPage,
    Key,
    OptionGroups,
    PicturePage,
    Removed,
    Samplers,
    Stopped,
    Style,
    SystemFacts,
    Uploaded,
)
from seesr.studio.records import (
    ENDED,
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

API = "/api/v1"
ALL_PICTURES = PictureSearch()
"""Every picture outside the trash."""
ADDRESS = "http://127.0.0.1:7860"
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
"""Seconds between two looks at a job, and between two tries to reach the studio; each wait is half as long again."""
TRIES = 12
"""One after the other to reach the studio again, while events are read: it may be starting anew."""
SILENCE = 60.0
"""Seconds without a sign of life after which a stream of events is taken for broken; the studio gives one each 15."""

IDLE_CONNECTION = 2.0
"""Seconds after which a connection is not used again: uvicorn closes it after 5, perhaps just when it is used."""

Answer = TypeVar("Answer")


class ClientError(SeeSRError):
    """Base of these errors."""


class UnreachableError(ClientError):
    """The studio does not answer."""


class ResponseError(ClientError):
    """The studio refused a request; the message is its own."""

    def __init__(self, message: str, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class WaitTimeoutError(ClientError):
    """A job did not end within the time that was given."""


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    body: dict[str, Any] | None = None
    query: dict[str, Any] = field(default_factory=dict)
    picture: bytes | None = None
    """A file that is uploaded."""

    def arguments(self) -> dict[str, Any]:
        """Arguments of httpx's `request`."""
        files = None if self.picture is None else {"picture": ("picture", self.picture, "application/octet-stream")}
        query = {name: value for name, value in self.query.items() if value is not None}
        return {"method": self.method, "url": API + self.path, "json": self.body, "params": query, "files": files}


def _as(kind: Any) -> Callable[[httpx.Response], Any]:
    """Reads an answer of this type."""
    adapter = TypeAdapter[Any](kind)

    def read(response: httpx.Response) -> Any:
        try:
            return adapter.validate_json(response.content)
        except ValidationError as error:
            raise ResponseError(
                f"{response.url} answered what this client does not know ({first_line(error)}); "
                "use the client of the studio's version.",
                response.status_code,
            ) from error

    return read


def _content(response: httpx.Response) -> bytes:
    return response.content


def _nothing(response: httpx.Response) -> None:
    del response


def _id(value: str) -> str:
    return quote(value, safe="")


def _query(search: PictureSearch) -> dict[str, Any]:
    """The parameters of a search, without what is as by default."""
    query = search.model_dump(mode="json", exclude_defaults=True)
    names = {"tags": "tag", "ids": "id"}
    return {names.get(name, name): value for name, value in query.items()}


class _Calls:
    """The calls of the native API."""

    @staticmethod
    def me() -> Call[User]:
        return Call("GET", "/me", _as(User))

    @staticmethod
    def upload(content: bytes) -> Call[str]:
        return Call("POST", "/uploads", lambda response: _as(Uploaded)(response).hash, picture=content)

    @staticmethod
    def submit(request: JobRequest, priority: int, webhook: str | None) -> Call[Job]:
        body = {"request": request.model_dump(mode="json"), "priority": priority, "webhook": webhook}
        return Call("POST", "/jobs", _as(Job), body)

    @staticmethod
    def jobs(states: Collection[JobState] | None, before: str | None, count: int, of: str | None) -> Call[JobPage]:
        query = {"state": list(states) if states else None, "before": before, "count": count, "of": of}
        return Call("GET", "/jobs", _as(JobPage), query=query)

    @staticmethod
    def job(job: str) -> Call[Job]:
        return Call("GET", f"/jobs/{_id(job)}", _as(Job))

    @staticmethod
    def cancel(job: str) -> Call[Job]:
        return Call("DELETE", f"/jobs/{_id(job)}", _as(Job))

    @staticmethod
    def skip(job: str) -> Call[None]:
        return Call("POST", f"/jobs/{_id(job)}/skip", _nothing)

    @staticmethod
    def interrupt() -> Call[list[str]]:
        return Call("POST", "/interrupt", lambda response: _as(Stopped)(response).jobs)

    @staticmethod
    def retry(job: str) -> Call[Job]:
        return Call("POST", f"/jobs/{_id(job)}/retry", _as(Job))

    @staticmethod
    def change(job: str, request: JobRequest | None, priority: int | None) -> Call[Job]:
        body = {"request": None if request is None else request.model_dump(mode="json"), "priority": priority}
        return Call("PATCH", f"/jobs/{_id(job)}", _as(Job), body)

    @staticmethod
    def move(job: str, before: str | None) -> Call[Job]:
        return Call("POST", f"/jobs/{_id(job)}/move", _as(Job), {"before": before})

    @staticmethod
    def prune(older_than: datetime, keep_pictures: bool) -> Call[int]:
        body = {"older_than": older_than.isoformat(), "keep_pictures": keep_pictures}
        return Call("POST", "/jobs/prune", lambda response: _as(Removed)(response).removed, body)

    @staticmethod
    def queue() -> Call[QueueStatus]:
        return Call("GET", "/queue", _as(QueueStatus))

    @staticmethod
    def pause(reason: str) -> Call[QueueStatus]:
        return Call("POST", "/queue/pause", _as(QueueStatus), {"reason": reason})

    @staticmethod
    def resume() -> Call[QueueStatus]:
        return Call("POST", "/queue/resume", _as(QueueStatus))

    @staticmethod
    def pictures(before: str | None, count: int, of: str | None, search: PictureSearch) -> Call[PicturePage]:
        query = {"before": before, "count": count, "of": of} | _query(search)
        return Call("GET", "/pictures", _as(PicturePage), query=query)

    @staticmethod
    def thumbnail(picture: str) -> Call[bytes]:
        return Call("GET", f"/pictures/{_id(picture)}/thumbnail", _content)

    @staticmethod
    def change_picture(picture: str, favourite: bool | None, tags: Collection[str] | None) -> Call[PictureRecord]:
        body = {"favourite": favourite, "tags": None if tags is None else list(tags)}
        return Call("PATCH", f"/pictures/{_id(picture)}", _as(PictureRecord), body)

    @staticmethod
    def trash(pictures: Collection[str]) -> Call[list[PictureRecord]]:
        return Call("POST", "/trash", _as(list[PictureRecord]), {"pictures": list(pictures)})

    @staticmethod
    def restore(pictures: Collection[str]) -> Call[list[PictureRecord]]:
        return Call("POST", "/trash/restore", _as(list[PictureRecord]), {"pictures": list(pictures)})

    @staticmethod
    def empty_trash() -> Call[int]:
        return Call("DELETE", "/trash", lambda response: _as(Removed)(response).removed)

    @staticmethod
    def terms(kind: TermKind, of: str | None) -> Call[list[Term]]:
        return Call("GET", "/terms", _as(list[Term]), query={"kind": kind, "of": of})

    @staticmethod
    def archive(search: PictureSearch, of: str | None) -> Call[bytes]:
        return Call("GET", "/archive", _content, query={"of": of} | _query(search))

    @staticmethod
    def boards(picture: str | None, of: str | None) -> Call[list[Board]]:
        return Call("GET", "/boards", _as(list[Board]), query={"picture": picture, "of": of})

    @staticmethod
    def board(board: str) -> Call[Board]:
        return Call("GET", f"/boards/{_id(board)}", _as(Board))

    @staticmethod
    def add_board(name: str) -> Call[Board]:
        return Call("POST", "/boards", _as(Board), {"name": name})

    @staticmethod
    def change_board(board: str, name: str | None, add: Collection[str], remove: Collection[str]) -> Call[Board]:
        body = {"name": name, "add": list(add), "remove": list(remove)}
        return Call("PATCH", f"/boards/{_id(board)}", _as(Board), body)

    @staticmethod
    def remove_board(board: str) -> Call[None]:
        return Call("DELETE", f"/boards/{_id(board)}", _nothing)

    @staticmethod
    def picture(picture: str) -> Call[PictureRecord]:
        return Call("GET", f"/pictures/{_id(picture)}", _as(PictureRecord))

    @staticmethod
    def picture_file(picture: str) -> Call[bytes]:
        return Call("GET", f"/pictures/{_id(picture)}/file", _content)

    @staticmethod
    def remove_picture(picture: str) -> Call[None]:
        return Call("DELETE", f"/pictures/{_id(picture)}", _nothing)

    @staticmethod
    def settings(content: bytes) -> Call[dict[str, Any]]:
        return Call("POST", "/settings", _as(dict[str, Any]), picture=content)

    @staticmethod
    def system() -> Call[SystemFacts]:
        return Call("GET", "/system", _as(SystemFacts))

    @staticmethod
    def options() -> Call[OptionGroups]:
        return Call("GET", "/options", _as(OptionGroups))

    @staticmethod
    def samplers() -> Call[Samplers]:
        return Call("GET", "/samplers", _as(Samplers))

    @staticmethod
    def styles() -> Call[list[Style]]:
        return Call("GET", "/styles", _as(list[Style]))

    @staticmethod
    def users() -> Call[list[User]]:
        return Call("GET", "/users", _as(list[User]))

    @staticmethod
    def add_user(name: str, password: str, role: Role) -> Call[User]:
        return Call("POST", "/users", _as(User), {"name": name, "password": password, "role": role})

    @staticmethod
    def remove_user(name: str) -> Call[None]:
        return Call("DELETE", f"/users/{_id(name)}", _nothing)

    @staticmethod
    def set_password(name: str, password: str) -> Call[None]:
        return Call("PUT", f"/users/{_id(name)}/password", _nothing, {"password": password})

    @staticmethod
    def export(name: str) -> Call[bytes]:
        return Call("GET", f"/users/{_id(name)}/export", _content)

    @staticmethod
    def keys() -> Call[list[Key]]:
        return Call("GET", "/me/keys", _as(list[Key]))

    @staticmethod
    def add_key(label: str) -> Call[FreshKey]:
        return Call("POST", "/me/keys", _as(FreshKey), {"label": label})

    @staticmethod
    def remove_key(key: str) -> Call[None]:
        return Call("DELETE", f"/me/keys/{_id(key)}", _nothing)


def _check(response: httpx.Response) -> None:
    """Raises ResponseError unless the studio did what was asked; its body must have been read."""
    if response.is_success:
        return
    try:
        error = ErrorAnswer.model_validate_json(response.content).error
    except ValidationError:  # a proxy's page
        reason = f"{response.status_code} {response.reason_phrase}".strip()
        raise ResponseError(f"{response.url} answered {reason}.", response.status_code) from None
    raise ResponseError(error.message, response.status_code, error.code)


def _unreachable(address: str, error: httpx.TransportError) -> UnreachableError:
    return UnreachableError(
        f"the studio at {address} does not answer ({first_line(error)}); is `seesr studio` running there?"
    )


class _Position:
    """How far the events of a job are read, and when it is time to give up reaching the studio again."""

    def __init__(self, after: int) -> None:
        self.after, self._failures, self._wait, self.ended = after, 0, FIRST_WAIT, False

    def read(self, line: str) -> JobEvent | None:
        """The event of a line of the stream, unless it was read before."""
        if not line.startswith("data:"):
            return None
        event = EventMessage.model_validate_json(line.removeprefix("data:")).event()
        if event.sequence <= self.after and event.kind not in ENDS:
            return None
        self.after, self._failures, self._wait = event.sequence, 0, FIRST_WAIT
        self.ended = event.kind in ENDS
        return event

    def wait_after(self, error: ClientError | None) -> float:
        """Seconds to wait before the next try; raises the error after too many."""
        self._failures += 1
        if self._failures >= TRIES:
            raise error or UnreachableError("the studio ended the stream of events again and again; look into its log.")
        self._wait = min(self._wait * 1.5, LONGEST_WAIT)
        return self._wait


def _check_stream(response: httpx.Response) -> None:
    """As `_check`, but where a proxy says that the studio is away, it is tried again."""
    if response.status_code not in (502, 503, 504):
        _check(response)


def _pause_between(tries: int) -> float:
    return min(FIRST_WAIT * 1.5**tries, LONGEST_WAIT)


def _has_ended(job: Job, deadline: float | None) -> bool:
    if job.state in ENDED:
        return True
    if deadline is not None and time.monotonic() > deadline:
        raise WaitTimeoutError(f"job {job.id} is {job.state} still; wait longer, or cancel it.")
    return False


def _settings(address: str, key: str | None, user: tuple[str, str] | None, timeout: float, transport: Any) -> dict[str, Any]:
    """Arguments of httpx's clients."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(keepalive_expiry=IDLE_CONNECTION)
    return {
        "base_url": address,
        "headers": headers,
        "auth": user,
        "timeout": timeout,
        "transport": transport,
        "limits": limits,
    }


def _stream(job: str, after: int, timeout: float) -> dict[str, Any]:
    """Arguments of httpx's `stream` for the events of a job."""
    path, query = f"{API}/jobs/{_id(job)}/events", {"after": after}
    return {"method": "GET", "url": path, "params": query, "timeout": httpx.Timeout(timeout, read=SILENCE)}


class Client:
    """A studio, as one of its users sees it. Thread-safe.

    Args:
        address: such as `https://studio.example/prefix`.
        key: a key of the user's, `sk-...`.
        user: name and password, in place of a key.
        timeout: seconds that an answer may take.
        transport: in place of the network, for tests.

    Every method raises:
        UnreachableError: the studio does not answer.
        ResponseError: it refuses; `status` is that of HTTP, 404 where there is no such thing.
    """

    def __init__(
        self,
        address: str = ADDRESS,
        key: str | None = None,
        user: tuple[str, str] | None = None,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.address, self._timeout = address, timeout
        self._http = httpx.Client(**_settings(address, key, user, timeout, transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _send(self, call: Call[Answer], again: bool = True) -> Answer:
        """Sends a request; what changes nothing once more, as a connection that was kept may have been closed meanwhile."""
        try:
            response = self._http.request(**call.arguments())
        except httpx.TransportError as error:
            if again and call.method == "GET":
                return self._send(call, again=False)
            raise _unreachable(self.address, error) from error
        _check(response)
        return call.read(response)

    def me(self) -> User:
        """The user that the key or the password is of."""
        return self._send(_Calls.me())

    def upload(self, content: bytes) -> str:
        """Hash of a picture's file, by which requests name it."""
        return self._send(_Calls.upload(content))

    def submit(
        self, request: JobRequest, pictures: Iterable[bytes] = (), priority: int = 0, webhook: str | None = None
    ) -> Job:
        """A new job; `pictures` are the files that the request names by hash, as far as they are not uploaded yet.

        Args:
            webhook: an address that is told of it.
        """
        for content in pictures:
            self.upload(content)
        return self._send(_Calls.submit(request, priority, webhook))

    def jobs(
        self,
        states: Collection[JobState] | None = None,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
    ) -> JobPage:
        """A page of jobs, newest first: one's own; for an admin also another user's, or with `*` everybody's."""
        return self._send(_Calls.jobs(states, before, count, of))

    def job(self, job: str) -> Job:
        """The job of this id."""
        return self._send(_Calls.job(job))

    def cancel(self, job: str) -> Job:
        """Ends a job; one that runs ends within a call of a network."""
        return self._send(_Calls.cancel(job))

    def skip(self, job: str) -> None:
        """Ends the picture that a job makes at this moment, and begins its next."""
        self._send(_Calls.skip(job))

    def interrupt(self) -> list[str]:
        """Ends one's own jobs that run; their ids."""
        return self._send(_Calls.interrupt())

    def retry(self, job: str) -> Job:
        """A new job with the settings of one that has ended."""
        return self._send(_Calls.retry(job))

    def change(self, job: str, request: JobRequest | None = None, priority: int | None = None) -> Job:
        """Changes a pending job."""
        return self._send(_Calls.change(job, request, priority))

    def move(self, job: str, before: str | None = None) -> Job:
        """Puts a pending job before another, or at the queue's end."""
        return self._send(_Calls.move(job, before))

    def prune(self, older_than: datetime, keep_pictures: bool = True) -> int:
        """Removes one's own ended jobs; the number of pictures that went with them."""
        return self._send(_Calls.prune(older_than, keep_pictures))

    def queue(self) -> QueueStatus:
        """The state of the queue."""
        return self._send(_Calls.queue())

    def pause(self, reason: str = "the operator paused it") -> QueueStatus:
        """Begins no more jobs; for admins."""
        return self._send(_Calls.pause(reason))

    def resume(self) -> QueueStatus:
        """Begins jobs again; for admins."""
        return self._send(_Calls.resume())

    def events(self, job: str, after: int = 0) -> Iterator[JobEvent]:
        """The events of a job until its end, each once; a connection that breaks is made anew."""
        position = _Position(after)
        while not position.ended:
            failure: ClientError | None = None
            try:
                with self._http.stream(**_stream(job, position.after, self._timeout)) as response:
                    if not response.is_success:
                        response.read()
                        _check_stream(response)
                    for line in response.iter_lines():
                        if event := position.read(line):
                            yield event
            except httpx.TransportError as error:
                failure = _unreachable(self.address, error)
            if not position.ended:
                time.sleep(position.wait_after(failure))

    def wait(self, job: str, timeout: float | None = None) -> Job:
        """The job when it has ended.

        Raises:
            WaitTimeoutError: it has not within `timeout` seconds.
        """
        deadline, tries = None if timeout is None else time.monotonic() + timeout, 0
        while not _has_ended(current := self.job(job), deadline):
            time.sleep(_pause_between(tries))
            tries += 1
        return current

    def pictures(
        self,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
        search: PictureSearch = ALL_PICTURES,
    ) -> PicturePage:
        """A page of the pictures of a search, newest first; of whom as for `jobs`."""
        return self._send(_Calls.pictures(before, count, of, search))

    def picture(self, picture: str) -> PictureRecord:
        """What is known of a picture."""
        return self._send(_Calls.picture(picture))

    def thumbnail(self, picture: str) -> bytes:
        """A small WebP of a picture, of at most 384 pixels a side."""
        return self._send(_Calls.thumbnail(picture))

    def change_picture(
        self, picture: str, favourite: bool | None = None, tags: Collection[str] | None = None
    ) -> PictureRecord:
        """Marks a picture as a favourite or not, and gives it other tags; None leaves either as it is."""
        return self._send(_Calls.change_picture(picture, favourite, tags))

    def trash(self, pictures: Collection[str]) -> list[PictureRecord]:
        """Puts pictures into the trash, all or none."""
        return self._send(_Calls.trash(pictures))

    def restore(self, pictures: Collection[str]) -> list[PictureRecord]:
        """Takes pictures out of the trash, all or none."""
        return self._send(_Calls.restore(pictures))

    def empty_trash(self) -> int:
        """Removes one's own pictures that are in the trash; their number."""
        return self._send(_Calls.empty_trash())

    def terms(self, kind: TermKind, of: str | None = None) -> list[Term]:
        """The words, tags, LoRAs or checkpoints by which most pictures are found."""
        return self._send(_Calls.terms(kind, of))

    def archive(self, search: PictureSearch = ALL_PICTURES, of: str | None = None) -> bytes:
        """A ZIP file of the pictures of a search."""
        return self._send(_Calls.archive(search, of))

    def boards(self, picture: str | None = None, of: str | None = None) -> list[Board]:
        """Boards by name; with `picture` those on which it is."""
        return self._send(_Calls.boards(picture, of))

    def board(self, board: str) -> Board:
        """The board of this id."""
        return self._send(_Calls.board(board))

    def add_board(self, name: str) -> Board:
        """A new, empty board."""
        return self._send(_Calls.add_board(name))

    def change_board(
        self, board: str, name: str | None = None, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> Board:
        """Gives a board another name, puts pictures on it, and takes others from it."""
        return self._send(_Calls.change_board(board, name, add, remove))

    def remove_board(self, board: str) -> None:
        """Removes a board; its pictures stay."""
        self._send(_Calls.remove_board(board))

    def picture_file(self, picture: str) -> bytes:
        """The file of a picture."""
        return self._send(_Calls.picture_file(picture))

    def remove_picture(self, picture: str) -> None:
        """Puts a picture into the trash."""
        self._send(_Calls.remove_picture(picture))

    def settings(self, content: bytes) -> dict[str, Any]:
        """The settings in a picture's file: `settings` (ours) and `infotext` (A1111's), None where there are none."""
        return self._send(_Calls.settings(content))

    def system(self) -> SystemFacts:
        """What the studio runs on."""
        return self._send(_Calls.system())

    def options(self) -> OptionGroups:
        """All options with bounds, default and help."""
        return self._send(_Calls.options())

    def samplers(self) -> Samplers:
        """Samplers and noise schedules."""
        return self._send(_Calls.samplers())

    def styles(self) -> list[Style]:
        """The operator's styles."""
        return self._send(_Calls.styles())

    def users(self) -> list[User]:
        """All users; for admins."""
        return self._send(_Calls.users())

    def add_user(self, name: str, password: str, role: Role = "user") -> User:
        """A new user; for admins."""
        return self._send(_Calls.add_user(name, password, role))

    def remove_user(self, name: str) -> None:
        """Removes a user with all jobs and pictures; for admins."""
        self._send(_Calls.remove_user(name))

    def set_password(self, name: str, password: str) -> None:
        """Sets one's own password, or for an admin another's; ends the sessions."""
        self._send(_Calls.set_password(name, password))

    def export(self, name: str) -> bytes:
        """A zip file of all of a user's jobs and pictures; one's own, or for an admin another's."""
        return self._send(_Calls.export(name))

    def list_keys(self) -> list[Key]:
        """One's keys, without their secrets."""
        return self._send(_Calls.keys())

    def add_key(self, label: str = "") -> FreshKey:
        """A new key; its secret is shown this once."""
        return self._send(_Calls.add_key(label))

    def remove_key(self, key: str) -> None:
        """Makes a key invalid."""
        self._send(_Calls.remove_key(key))


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
        self._http = httpx.AsyncClient(**_settings(address, key, user, timeout, transport))

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
            raise _unreachable(self.address, error) from error
        _check(response)
        return call.read(response)

    async def me(self) -> User:
        return await self._send(_Calls.me())

    async def upload(self, content: bytes) -> str:
        return await self._send(_Calls.upload(content))

    async def submit(
        self, request: JobRequest, pictures: Iterable[bytes] = (), priority: int = 0, webhook: str | None = None
    ) -> Job:
        for content in pictures:
            await self.upload(content)
        return await self._send(_Calls.submit(request, priority, webhook))

    async def jobs(
        self,
        states: Collection[JobState] | None = None,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
    ) -> JobPage:
        return await self._send(_Calls.jobs(states, before, count, of))

    async def job(self, job: str) -> Job:
        return await self._send(_Calls.job(job))

    async def cancel(self, job: str) -> Job:
        return await self._send(_Calls.cancel(job))

    async def skip(self, job: str) -> None:
        await self._send(_Calls.skip(job))

    async def interrupt(self) -> list[str]:
        return await self._send(_Calls.interrupt())

    async def retry(self, job: str) -> Job:
        return await self._send(_Calls.retry(job))

    async def change(self, job: str, request: JobRequest | None = None, priority: int | None = None) -> Job:
        return await self._send(_Calls.change(job, request, priority))

    async def move(self, job: str, before: str | None = None) -> Job:
        return await self._send(_Calls.move(job, before))

    async def prune(self, older_than: datetime, keep_pictures: bool = True) -> int:
        return await self._send(_Calls.prune(older_than, keep_pictures))

    async def queue(self) -> QueueStatus:
        return await self._send(_Calls.queue())

    async def pause(self, reason: str = "the operator paused it") -> QueueStatus:
        return await self._send(_Calls.pause(reason))

    async def resume(self) -> QueueStatus:
        return await self._send(_Calls.resume())

    async def events(self, job: str, after: int = 0) -> AsyncIterator[JobEvent]:
        position = _Position(after)
        while not position.ended:
            failure: ClientError | None = None
            try:
                async with self._http.stream(**_stream(job, position.after, self._timeout)) as response:
                    if not response.is_success:
                        await response.aread()
                        _check_stream(response)
                    async for line in response.aiter_lines():
                        if event := position.read(line):
                            yield event
            except httpx.TransportError as error:
                failure = _unreachable(self.address, error)
            if not position.ended:
                await asyncio.sleep(position.wait_after(failure))

    async def wait(self, job: str, timeout: float | None = None) -> Job:
        deadline, tries = None if timeout is None else time.monotonic() + timeout, 0
        while not _has_ended(current := await self.job(job), deadline):
            await asyncio.sleep(_pause_between(tries))
            tries += 1
        return current

    async def pictures(
        self,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
        search: PictureSearch = ALL_PICTURES,
    ) -> PicturePage:
        return await self._send(_Calls.pictures(before, count, of, search))

    async def picture(self, picture: str) -> PictureRecord:
        return await self._send(_Calls.picture(picture))

    async def thumbnail(self, picture: str) -> bytes:
        return await self._send(_Calls.thumbnail(picture))

    async def change_picture(
        self, picture: str, favourite: bool | None = None, tags: Collection[str] | None = None
    ) -> PictureRecord:
        return await self._send(_Calls.change_picture(picture, favourite, tags))

    async def trash(self, pictures: Collection[str]) -> list[PictureRecord]:
        return await self._send(_Calls.trash(pictures))

    async def restore(self, pictures: Collection[str]) -> list[PictureRecord]:
        return await self._send(_Calls.restore(pictures))

    async def empty_trash(self) -> int:
        return await self._send(_Calls.empty_trash())

    async def terms(self, kind: TermKind, of: str | None = None) -> list[Term]:
        return await self._send(_Calls.terms(kind, of))

    async def archive(self, search: PictureSearch = ALL_PICTURES, of: str | None = None) -> bytes:
        return await self._send(_Calls.archive(search, of))

    async def boards(self, picture: str | None = None, of: str | None = None) -> list[Board]:
        return await self._send(_Calls.boards(picture, of))

    async def board(self, board: str) -> Board:
        return await self._send(_Calls.board(board))

    async def add_board(self, name: str) -> Board:
        return await self._send(_Calls.add_board(name))

    async def change_board(
        self, board: str, name: str | None = None, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> Board:
        return await self._send(_Calls.change_board(board, name, add, remove))

    async def remove_board(self, board: str) -> None:
        await self._send(_Calls.remove_board(board))

    async def picture_file(self, picture: str) -> bytes:
        return await self._send(_Calls.picture_file(picture))

    async def remove_picture(self, picture: str) -> None:
        await self._send(_Calls.remove_picture(picture))

    async def settings(self, content: bytes) -> dict[str, Any]:
        return await self._send(_Calls.settings(content))

    async def system(self) -> SystemFacts:
        return await self._send(_Calls.system())

    async def options(self) -> OptionGroups:
        return await self._send(_Calls.options())

    async def samplers(self) -> Samplers:
        return await self._send(_Calls.samplers())

    async def styles(self) -> list[Style]:
        return await self._send(_Calls.styles())

    async def users(self) -> list[User]:
        return await self._send(_Calls.users())

    async def add_user(self, name: str, password: str, role: Role = "user") -> User:
        return await self._send(_Calls.add_user(name, password, role))

    async def remove_user(self, name: str) -> None:
        await self._send(_Calls.remove_user(name))

    async def set_password(self, name: str, password: str) -> None:
        await self._send(_Calls.set_password(name, password))

    async def export(self, name: str) -> bytes:
        return await self._send(_Calls.export(name))

    async def list_keys(self) -> list[Key]:
        return await self._send(_Calls.keys())

    async def add_key(self, label: str = "") -> FreshKey:
        return await self._send(_Calls.add_key(label))

    async def remove_key(self, key: str) -> None:
        await self._send(_Calls.remove_key(key))
