"""The calls of the studio's native API: method, path and body of each, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from seesr.client.errors import ResponseError
from seesr.errors import first_line
from seesr.jobs import JobRequest
from seesr.studio.api.schemas import (
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
Answer = TypeVar("Answer")


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


def me() -> Call[User]:
    return Call("GET", "/me", _as(User))


def upload(content: bytes) -> Call[str]:
    return Call("POST", "/uploads", lambda response: _as(Uploaded)(response).hash, picture=content)


def submit(request: JobRequest, priority: int, webhook: str | None) -> Call[Job]:
    body = {"request": request.model_dump(mode="json"), "priority": priority, "webhook": webhook}
    return Call("POST", "/jobs", _as(Job), body)


def jobs(states: Collection[JobState] | None, before: str | None, count: int, of: str | None) -> Call[JobPage]:
    query = {"state": list(states) if states else None, "before": before, "count": count, "of": of}
    return Call("GET", "/jobs", _as(JobPage), query=query)


def job(job: str) -> Call[Job]:
    return Call("GET", f"/jobs/{quoted(job)}", _as(Job))


def cancel(job: str) -> Call[Job]:
    return Call("DELETE", f"/jobs/{quoted(job)}", _as(Job))


def skip(job: str) -> Call[None]:
    return Call("POST", f"/jobs/{quoted(job)}/skip", _nothing)


def interrupt() -> Call[list[str]]:
    return Call("POST", "/interrupt", lambda response: _as(Stopped)(response).jobs)


def retry(job: str) -> Call[Job]:
    return Call("POST", f"/jobs/{quoted(job)}/retry", _as(Job))


def change(job: str, request: JobRequest | None, priority: int | None) -> Call[Job]:
    body = {"request": None if request is None else request.model_dump(mode="json"), "priority": priority}
    return Call("PATCH", f"/jobs/{quoted(job)}", _as(Job), body)


def move(job: str, before: str | None) -> Call[Job]:
    return Call("POST", f"/jobs/{quoted(job)}/move", _as(Job), {"before": before})


def prune(older_than: datetime, keep_pictures: bool) -> Call[int]:
    body = {"older_than": older_than.isoformat(), "keep_pictures": keep_pictures}
    return Call("POST", "/jobs/prune", lambda response: _as(Removed)(response).removed, body)


def queue() -> Call[QueueStatus]:
    return Call("GET", "/queue", _as(QueueStatus))


def pause(reason: str) -> Call[QueueStatus]:
    return Call("POST", "/queue/pause", _as(QueueStatus), {"reason": reason})


def resume() -> Call[QueueStatus]:
    return Call("POST", "/queue/resume", _as(QueueStatus))


def pictures(before: str | None, count: int, of: str | None, search: PictureSearch) -> Call[PicturePage]:
    query = {"before": before, "count": count, "of": of} | _query(search)
    return Call("GET", "/pictures", _as(PicturePage), query=query)


def thumbnail(picture: str) -> Call[bytes]:
    return Call("GET", f"/pictures/{quoted(picture)}/thumbnail", _content)


def change_picture(picture: str, favourite: bool | None, tags: Collection[str] | None) -> Call[PictureRecord]:
    body = {"favourite": favourite, "tags": None if tags is None else list(tags)}
    return Call("PATCH", f"/pictures/{quoted(picture)}", _as(PictureRecord), body)


def trash(pictures: Collection[str]) -> Call[list[PictureRecord]]:
    return Call("POST", "/trash", _as(list[PictureRecord]), {"pictures": list(pictures)})


def restore(pictures: Collection[str]) -> Call[list[PictureRecord]]:
    return Call("POST", "/trash/restore", _as(list[PictureRecord]), {"pictures": list(pictures)})


def empty_trash() -> Call[int]:
    return Call("DELETE", "/trash", lambda response: _as(Removed)(response).removed)


def terms(kind: TermKind, of: str | None) -> Call[list[Term]]:
    return Call("GET", "/terms", _as(list[Term]), query={"kind": kind, "of": of})


def archive(search: PictureSearch, of: str | None) -> Call[bytes]:
    return Call("GET", "/archive", _content, query={"of": of} | _query(search))


def boards(picture: str | None, of: str | None) -> Call[list[Board]]:
    return Call("GET", "/boards", _as(list[Board]), query={"picture": picture, "of": of})


def board(board: str) -> Call[Board]:
    return Call("GET", f"/boards/{quoted(board)}", _as(Board))


def add_board(name: str) -> Call[Board]:
    return Call("POST", "/boards", _as(Board), {"name": name})


def change_board(board: str, name: str | None, add: Collection[str], remove: Collection[str]) -> Call[Board]:
    body = {"name": name, "add": list(add), "remove": list(remove)}
    return Call("PATCH", f"/boards/{quoted(board)}", _as(Board), body)


def remove_board(board: str) -> Call[None]:
    return Call("DELETE", f"/boards/{quoted(board)}", _nothing)


def picture(picture: str) -> Call[PictureRecord]:
    return Call("GET", f"/pictures/{quoted(picture)}", _as(PictureRecord))


def picture_file(picture: str) -> Call[bytes]:
    return Call("GET", f"/pictures/{quoted(picture)}/file", _content)


def remove_picture(picture: str) -> Call[None]:
    return Call("DELETE", f"/pictures/{quoted(picture)}", _nothing)


def settings(content: bytes) -> Call[dict[str, Any]]:
    return Call("POST", "/settings", _as(dict[str, Any]), picture=content)


def system() -> Call[SystemFacts]:
    return Call("GET", "/system", _as(SystemFacts))


def options() -> Call[OptionGroups]:
    return Call("GET", "/options", _as(OptionGroups))


def samplers() -> Call[Samplers]:
    return Call("GET", "/samplers", _as(Samplers))


def styles() -> Call[list[Style]]:
    return Call("GET", "/styles", _as(list[Style]))


def users() -> Call[list[User]]:
    return Call("GET", "/users", _as(list[User]))


def add_user(name: str, password: str, role: Role) -> Call[User]:
    return Call("POST", "/users", _as(User), {"name": name, "password": password, "role": role})


def remove_user(name: str) -> Call[None]:
    return Call("DELETE", f"/users/{quoted(name)}", _nothing)


def set_password(name: str, password: str) -> Call[None]:
    return Call("PUT", f"/users/{quoted(name)}/password", _nothing, {"password": password})


def export(name: str) -> Call[bytes]:
    return Call("GET", f"/users/{quoted(name)}/export", _content)


def keys() -> Call[list[Key]]:
    return Call("GET", "/me/keys", _as(list[Key]))


def add_key(label: str) -> Call[FreshKey]:
    return Call("POST", "/me/keys", _as(FreshKey), {"label": label})


def remove_key(key: str) -> Call[None]:
    return Call("DELETE", f"/me/keys/{quoted(key)}", _nothing)


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


def quoted(value: str) -> str:
    """An id or a name, as a part of a path."""
    return quote(value, safe="")


def _query(search: PictureSearch) -> dict[str, Any]:
    """The parameters of a search, without what is as by default."""
    query = search.model_dump(mode="json", exclude_defaults=True)
    names = {"tags": "tag", "ids": "id"}
    return {names.get(name, name): value for name, value in query.items()}
