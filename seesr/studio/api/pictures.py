"""Routes of finished pictures, and of the settings in a picture's file."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response, UploadFile
from fastapi.responses import FileResponse

from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.failures import FAILURES_OF_FILES
from seesr.studio.api.jobs import Before, Count, Id, Of
from seesr.studio.api.schemas import PicturePage
from seesr.studio.records import PictureRecord

router = APIRouter(tags=["pictures"])


@router.get("/pictures")
def pictures(studio: AnyStudio, user: AnyUser, before: Before = None, count: Count = 50, of: Of = None) -> PicturePage:
    """One's own pictures, newest first."""
    page = studio.pictures(user, before, count, of)
    return PicturePage(pictures=page, next=page[-1].id if len(page) == count else None)


@router.get("/pictures/{picture}")
def picture(studio: AnyStudio, user: AnyUser, picture: Id) -> PictureRecord:
    """What is known of a picture."""
    return studio.picture(user, picture)


@router.get(
    "/pictures/{picture}/file",
    response_class=FileResponse,
    responses={
        **FAILURES_OF_FILES,
        200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "The file."},
        206: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "A part of it."},
        304: {"description": "The file has not changed."},
        416: {"description": "There is no such part."},
    },
)
def picture_file(
    studio: AnyStudio, user: AnyUser, picture: Id, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The file of a picture, as it was saved."""
    record, path = studio.picture_content(user, picture)
    etag = f'"{record.digest}"'
    headers = {
        "ETag": etag,
        # A picture never changes. Only its owner's browser may keep it.
        "Cache-Control": "private, max-age=86400",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if if_none_match is not None and etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=record.media_type, filename=path.name, headers=headers)


@router.delete("/pictures/{picture}", status_code=204)
def remove_picture(studio: AnyStudio, user: AnyUser, picture: Id) -> Response:
    """Removes a picture and its file."""
    studio.remove_picture(user, picture)
    return Response(status_code=204)


@router.post("/settings")
def settings(studio: AnyStudio, user: AnyUser, picture: UploadFile) -> dict[str, Any]:
    """The settings in a picture's file: `settings` (ours) and `infotext` (A1111's); null where there are none."""
    del user
    return studio.read_settings(picture.file.read())
