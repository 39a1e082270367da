"""The blocking client of a studio."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
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
        self._http = httpx.Client(**client_settings(address, key, user, timeout, transport))

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
            raise unreachable(self.address, error) from error
        check(response)
        return call.read(response)

    def me(self) -> User:
        """The user that the key or the password is of."""
        return self._send(calls.me())

    def upload(self, content: bytes) -> str:
        """Hash of a picture's file, by which requests name it."""
        return self._send(calls.upload(content))

    def submit(
        self, request: JobRequest, pictures: Iterable[bytes] = (), priority: int = 0, webhook: str | None = None
    ) -> Job:
        """A new job; `pictures` are the files that the request names by hash, as far as they are not uploaded yet.

        Args:
            webhook: an address that is told of it.
        """
        for content in pictures:
            self.upload(content)
        return self._send(calls.submit(request, priority, webhook))

    def jobs(
        self,
        states: Collection[JobState] | None = None,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
    ) -> JobPage:
        """A page of jobs, newest first: one's own; for an admin also another user's, or with `*` everybody's."""
        return self._send(calls.jobs(states, before, count, of))

    def job(self, job: str) -> Job:
        """The job of this id."""
        return self._send(calls.job(job))

    def cancel(self, job: str) -> Job:
        """Ends a job; one that runs ends within a call of a network."""
        return self._send(calls.cancel(job))

    def skip(self, job: str) -> None:
        """Ends the picture that a job makes at this moment, and begins its next."""
        self._send(calls.skip(job))

    def interrupt(self) -> list[str]:
        """Ends one's own jobs that run; their ids."""
        return self._send(calls.interrupt())

    def retry(self, job: str) -> Job:
        """A new job with the settings of one that has ended."""
        return self._send(calls.retry(job))

    def change(self, job: str, request: JobRequest | None = None, priority: int | None = None) -> Job:
        """Changes a pending job."""
        return self._send(calls.change(job, request, priority))

    def move(self, job: str, before: str | None = None) -> Job:
        """Puts a pending job before another, or at the queue's end."""
        return self._send(calls.move(job, before))

    def prune(self, older_than: datetime, keep_pictures: bool = True) -> int:
        """Removes one's own ended jobs; the number of pictures that went with them."""
        return self._send(calls.prune(older_than, keep_pictures))

    def queue(self) -> QueueStatus:
        """The state of the queue."""
        return self._send(calls.queue())

    def pause(self, reason: str = "the operator paused it") -> QueueStatus:
        """Begins no more jobs; for admins."""
        return self._send(calls.pause(reason))

    def resume(self) -> QueueStatus:
        """Begins jobs again; for admins."""
        return self._send(calls.resume())

    def events(self, job: str, after: int = 0) -> Iterator[JobEvent]:
        """The events of a job until its end, each once; a connection that breaks is made anew."""
        position = Position(after)
        while not position.ended:
            failure: ClientError | None = None
            try:
                with self._http.stream(**stream_settings(job, position.after, self._timeout)) as response:
                    if not response.is_success:
                        response.read()
                        check_stream(response)
                    for line in response.iter_lines():
                        if event := position.read(line):
                            yield event
            except httpx.TransportError as error:
                failure = unreachable(self.address, error)
            if not position.ended:
                time.sleep(position.wait_after(failure))

    def wait(self, job: str, timeout: float | None = None) -> Job:
        """The job when it has ended.

        Raises:
            WaitTimeoutError: it has not within `timeout` seconds.
        """
        deadline, tries = None if timeout is None else time.monotonic() + timeout, 0
        while not has_ended(current := self.job(job), deadline):
            time.sleep(pause_between(tries))
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
        return self._send(calls.pictures(before, count, of, search))

    def picture(self, picture: str) -> PictureRecord:
        """What is known of a picture."""
        return self._send(calls.picture(picture))

    def thumbnail(self, picture: str) -> bytes:
        """A small WebP of a picture, of at most 384 pixels a side."""
        return self._send(calls.thumbnail(picture))

    def change_picture(
        self, picture: str, favourite: bool | None = None, tags: Collection[str] | None = None
    ) -> PictureRecord:
        """Marks a picture as a favourite or not, and gives it other tags; None leaves either as it is."""
        return self._send(calls.change_picture(picture, favourite, tags))

    def trash(self, pictures: Collection[str]) -> list[PictureRecord]:
        """Puts pictures into the trash, all or none."""
        return self._send(calls.trash(pictures))

    def restore(self, pictures: Collection[str]) -> list[PictureRecord]:
        """Takes pictures out of the trash, all or none."""
        return self._send(calls.restore(pictures))

    def empty_trash(self) -> int:
        """Removes one's own pictures that are in the trash; their number."""
        return self._send(calls.empty_trash())

    def terms(self, kind: TermKind, of: str | None = None) -> list[Term]:
        """The words, tags, LoRAs or checkpoints by which most pictures are found."""
        return self._send(calls.terms(kind, of))

    def archive(self, search: PictureSearch = ALL_PICTURES, of: str | None = None) -> bytes:
        """A ZIP file of the pictures of a search."""
        return self._send(calls.archive(search, of))

    def boards(self, picture: str | None = None, of: str | None = None) -> list[Board]:
        """Boards by name; with `picture` those on which it is."""
        return self._send(calls.boards(picture, of))

    def board(self, board: str) -> Board:
        """The board of this id."""
        return self._send(calls.board(board))

    def add_board(self, name: str) -> Board:
        """A new, empty board."""
        return self._send(calls.add_board(name))

    def change_board(
        self, board: str, name: str | None = None, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> Board:
        """Gives a board another name, puts pictures on it, and takes others from it."""
        return self._send(calls.change_board(board, name, add, remove))

    def remove_board(self, board: str) -> None:
        """Removes a board; its pictures stay."""
        self._send(calls.remove_board(board))

    def picture_file(self, picture: str) -> bytes:
        """The file of a picture."""
        return self._send(calls.picture_file(picture))

    def remove_picture(self, picture: str) -> None:
        """Puts a picture into the trash."""
        self._send(calls.remove_picture(picture))

    def settings(self, content: bytes) -> dict[str, Any]:
        """The settings in a picture's file: `settings` (ours) and `infotext` (A1111's), None where there are none."""
        return self._send(calls.settings(content))

    def system(self) -> SystemFacts:
        """What the studio runs on."""
        return self._send(calls.system())

    def options(self) -> OptionGroups:
        """All options with bounds, default and help."""
        return self._send(calls.options())

    def samplers(self) -> Samplers:
        """Samplers and noise schedules."""
        return self._send(calls.samplers())

    def styles(self) -> list[Style]:
        """The operator's styles."""
        return self._send(calls.styles())

    def users(self) -> list[User]:
        """All users; for admins."""
        return self._send(calls.users())

    def add_user(self, name: str, password: str, role: Role = "user") -> User:
        """A new user; for admins."""
        return self._send(calls.add_user(name, password, role))

    def remove_user(self, name: str) -> None:
        """Removes a user with all jobs and pictures; for admins."""
        self._send(calls.remove_user(name))

    def set_password(self, name: str, password: str) -> None:
        """Sets one's own password, or for an admin another's; ends the sessions."""
        self._send(calls.set_password(name, password))

    def export(self, name: str) -> bytes:
        """A zip file of all of a user's jobs and pictures; one's own, or for an admin another's."""
        return self._send(calls.export(name))

    def list_keys(self) -> list[Key]:
        """One's keys, without their secrets."""
        return self._send(calls.keys())

    def add_key(self, label: str = "") -> FreshKey:
        """A new key; its secret is shown this once."""
        return self._send(calls.add_key(label))

    def remove_key(self, key: str) -> None:
        """Makes a key invalid."""
        self._send(calls.remove_key(key))
