"""Routes of finished pictures, and of the settings in a picture's file."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response, UploadFile
from fastapi.responses import FileResponse

from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.failures import FAILURES_OF_FILES
from seesr.studio.api.gallery import AnySearch
from seesr.studio.api.jobs import Before, Count, Id, Of
from seesr.studio.api.schemas import PictureChange, PicturePage
from seesr.studio.records import PictureRecord

router = APIRouter(tags=["pictures"])
MAX_WORDS = 48
"""Characters of a prompt in a file's name."""
IfNoneMatch = Annotated[str | None, Header()]
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    **FAILURES_OF_FILES,
    200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "The file."},
    206: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "A part of it."},
    304: {"description": "The file has not changed."},
    416: {"description": "There is no such part."},
}


@router.get("/pictures")
def pictures(
    studio: AnyStudio, user: AnyUser, search: AnySearch, before: Before = None, count: Count = 50, of: Of = None
) -> PicturePage:
    """One's own pictures that a search finds, newest first."""
    page = studio.pictures(user, before, count, of, search)
    return PicturePage(pictures=page, next=page[-1].id if len(page) == count else None)


@router.get("/pictures/{picture}")
def picture(studio: AnyStudio, user: AnyUser, picture: Id) -> PictureRecord:
    """What is known of a picture."""
    return studio.picture(user, picture)


@router.get("/pictures/{picture}/file", response_class=FileResponse, responses=FILE_ANSWERS)
def picture_file(studio: AnyStudio, user: AnyUser, picture: Id, if_none_match: IfNoneMatch = None) -> Response:
    """The file of a picture, as it was saved; its name begins with the first words of the prompt."""
    record, path = studio.picture_content(user, picture)
    return _file(path, record.media_type, record.digest, if_none_match, download_name(record, path))


@router.get("/pictures/{picture}/thumbnail", response_class=FileResponse, responses=FILE_ANSWERS)
def thumbnail(studio: AnyStudio, user: AnyUser, picture: Id, if_none_match: IfNoneMatch = None) -> Response:
    """The picture as a WebP of at most 384 pixels a side, also of one in the trash."""
    record, path = studio.thumbnail(user, picture)
    return _file(path, "image/webp", f"{record.digest}-thumbnail", if_none_match)


def download_name(picture: PictureRecord, path: FilePath) -> str:
    """How a picture's file is called where a user saves it: by the words of the prompt, or its size without, and the id."""
    # What is enlarged has a prompt of tags and words for quality, and the user's own `words`.
    prompt = str(picture.settings.get("words", picture.settings.get("prompt")) or f"{picture.width}x{picture.height}")
    words = "-".join(re.findall(r"\w+", prompt.lower()))[:MAX_WORDS].rstrip("-")
    return f"{words}-{picture.id[:8]}{path.suffix}".lstrip("-")


def _file(path: FilePath, media_type: str, version: str, if_none_match: str | None, name: str | None = None) -> Response:
    """The answer with a file, called `name` or as it is, unless the client has this version of it."""
    etag = f'"{version}"'
    headers = {
        "ETag": etag,
        # A picture never changes. Only its owner's browser may keep it.
        "Cache-Control": "private, max-age=86400",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if if_none_match is not None and etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=media_type, filename=name or path.name, headers=headers)


@router.patch("/pictures/{picture}")
def change_picture(studio: AnyStudio, user: AnyUser, picture: Id, change: PictureChange) -> PictureRecord:
    """Marks a picture as a favourite or not, and gives it other tags."""
    return studio.change_picture(user, picture, change.favourite, change.tags)


@router.delete("/pictures/{picture}", status_code=204)
def remove_picture(studio: AnyStudio, user: AnyUser, picture: Id) -> Response:
    """Puts a picture into the trash."""
    studio.remove_picture(user, picture)
    return Response(status_code=204)


@router.post("/settings")
def settings(studio: AnyStudio, user: AnyUser, picture: UploadFile) -> dict[str, Any]:
    """The settings in a picture's file: `settings` (ours) and `infotext` (A1111's); null where there are none."""
    del user
    return studio.read_settings(picture.file.read())
