"""Routes of the gallery: the trash, boards, what pictures are found by, and the download of many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.failures import FAILURES_OF_FILES
from seesr.studio.api.jobs import Id, Of
from seesr.studio.api.schemas import MAX_ID, MAX_PAGE, MAX_TAG, MAX_TAGS, BoardChange, NewBoard, Pictures, Removed
from seesr.studio.records import Board, PictureRecord, PictureSearch, Term, TermKind

router = APIRouter(tags=["gallery"])
Name = Annotated[str | None, Query(max_length=MAX_TAG)]


def picture_search(
    words: Annotated[str, Query(max_length=500, description="Words that all stand in the prompt.")] = "",
    tag: Annotated[list[str], Query(max_length=MAX_TAGS, description="Tags, all of them.")] = [],  # noqa: B006 as FastAPI has it
    lora: Name = None,
    checkpoint: Name = None,
    since: Annotated[AwareDatetime | None, Query(description="Made at this moment or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Made before this moment.")] = None,
    favourite: Annotated[bool, Query(description="Favourites alone.")] = False,
    board: Annotated[str | None, Query(max_length=MAX_ID, description="Id of a board.")] = None,
    id: Annotated[list[str], Query(max_length=MAX_PAGE, description="These pictures alone.")] = [],  # noqa: B006
    trash: Annotated[bool, Query(description="The trash in place of what is not in it.")] = False,
) -> PictureSearch:
    """Which pictures are wanted."""
    return PictureSearch(
        words=words,
        tags=tuple(tag),
        lora=lora,
        checkpoint=checkpoint,
        since=since,
        until=until,
        favourite=favourite,
        board=board,
        ids=tuple(id),
        trash=trash,
    )


AnySearch = Annotated[PictureSearch, Depends(picture_search)]


@router.get(
    "/archive",
    response_class=StreamingResponse,
    responses={
        **FAILURES_OF_FILES,
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}, "description": "A ZIP."},
    },
)
def archive(studio: AnyStudio, user: AnyUser, search: AnySearch, of: Of = None) -> StreamingResponse:
    """The files of all pictures of a search, as a ZIP file."""
    headers = {"Content-Disposition": f'attachment; filename="pictures-{datetime.now(UTC):%Y-%m-%d}.zip"'}
    return StreamingResponse(studio.archive(user, search, of), media_type="application/zip", headers=headers)


@router.get("/terms")
def terms(studio: AnyStudio, user: AnyUser, kind: TermKind, of: Of = None) -> list[Term]:
    """The words, tags, LoRAs or checkpoints by which most of one's pictures are found, with their numbers."""
    return studio.terms(user, kind, of)


@router.post("/trash")
def trash(studio: AnyStudio, user: AnyUser, pictures: Pictures) -> list[PictureRecord]:
    """Puts pictures into the trash, all or none; after the operator's time they are removed."""
    return studio.trash(user, pictures.pictures)


@router.post("/trash/restore")
def restore(studio: AnyStudio, user: AnyUser, pictures: Pictures) -> list[PictureRecord]:
    """Takes pictures out of the trash, all or none."""
    return studio.restore(user, pictures.pictures)


@router.delete("/trash")
def empty_trash(studio: AnyStudio, user: AnyUser) -> Removed:
    """Removes one's own pictures that are in the trash."""
    return Removed(removed=studio.empty_trash(user))


@router.get("/boards")
def boards(
    studio: AnyStudio,
    user: AnyUser,
    picture: Annotated[str | None, Query(max_length=MAX_ID, description="Only boards on which this picture is.")] = None,
    of: Of = None,
) -> list[Board]:
    """One's boards, by name."""
    return studio.boards(user, of, picture)


@router.post("/boards", status_code=201)
def add_board(studio: AnyStudio, user: AnyUser, board: NewBoard) -> Board:
    """Makes an empty board."""
    return studio.add_board(user, board.name)


@router.get("/boards/{board}")
def board(studio: AnyStudio, user: AnyUser, board: Id) -> Board:
    """A board; its pictures are those of a search with its id."""
    return studio.board(user, board)


@router.patch("/boards/{board}")
def change_board(studio: AnyStudio, user: AnyUser, board: Id, change: BoardChange) -> Board:
    """Gives a board another name, puts pictures on it, and takes others from it."""
    return studio.change_board(user, board, change.name, change.add, change.remove)


@router.delete("/boards/{board}", status_code=204)
def remove_board(studio: AnyStudio, user: AnyUser, board: Id) -> Response:
    """Removes a board; its pictures stay."""
    studio.remove_board(user, board)
    return Response(status_code=204)
