"""Boards in the store: collections of a user's pictures."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, exists, func, insert, select
from sqlalchemy.orm import Session

from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.records import Board
from seesr.studio.store.database import Database, row_of
from seesr.studio.store.tables import BoardPictureRow, BoardRow, PictureRow, now


class BoardStore(Database):
    """The rows of boards. A picture may be on many boards, all of its own user."""

    def add_board(self, user: str, name: str) -> Board:
        """Makes an empty board.

        Raises:
            ConflictError: the user has a board of this name.
        """
        with self._write() as session:
            _check_name(session, user, name)
            row = BoardRow(id=secrets.token_hex(16), user=user, name=name, created=now())
            session.add(row)
            return Board(id=row.id, user=user, name=name, created=row.created)

    def board(self, id: str) -> Board:
        """A board.

        Raises:
            NotFoundError: there is no such board.
        """
        with self._read() as session:
            return _boards(session, BoardRow.id == row_of(session, BoardRow, id, "board").id)[0]

    def boards(self, user: str | None = None, picture: str | None = None) -> list[Board]:
        """The boards of a user, or of all, by name; those alone on which a picture is, where one is given."""
        conditions = [] if user is None else [BoardRow.user == user]
        if picture is not None:
            on_board = select(BoardPictureRow.board).join(PictureRow).where(PictureRow.id == picture)
            conditions.append(BoardRow.id.in_(on_board))
        with self._read() as session:
            return _boards(session, *conditions)

    def rename_board(self, id: str, name: str) -> Board:
        """Gives a board another name.

        Raises:
            NotFoundError: there is no such board.
            ConflictError: the user has another board of this name.
        """
        with self._write() as session:
            row = row_of(session, BoardRow, id, "board")
            if row.name != name:
                _check_name(session, row.user, name)
                row.name = name
                session.flush()
            return _boards(session, BoardRow.id == id)[0]

    def remove_board(self, id: str) -> None:
        """Removes a board; its pictures stay.

        Raises:
            NotFoundError: there is no such board.
        """
        with self._write() as session:
            session.delete(row_of(session, BoardRow, id, "board"))

    def change_board(self, id: str, add: Collection[str] = (), remove: Collection[str] = ()) -> Board:
        """Puts pictures, by id, on a board and takes others from it.

        Raises:
            NotFoundError: there is no such board, or its user has no picture of one of the ids; nothing has changed.
        """
        with self._write() as session:
            row = row_of(session, BoardRow, id, "board")
            query = select(PictureRow.id, PictureRow.number).where(PictureRow.user == row.user)
            numbers = dict(session.execute(query.where(PictureRow.id.in_({*add, *remove}))).all())
            if missing := sorted({*add, *remove} - numbers.keys()):
                raise NotFoundError(f"there is no picture {missing[0]!r} of the board's user; list the pictures.")
            on_board = BoardPictureRow.board == id
            # Also what is added: a picture that is there already is not to be there twice.
            session.execute(delete(BoardPictureRow).where(on_board, BoardPictureRow.picture.in_(numbers.values())))
            if kept := [{"board": id, "picture": numbers[name]} for name in dict.fromkeys(add) if name not in {*remove}]:
                session.execute(insert(BoardPictureRow), kept)
            return _boards(session, BoardRow.id == id)[0]


def _boards(session: Session, *conditions: ColumnElement[bool]) -> list[Board]:
    """Boards by name, each with the number of its pictures; one query."""
    shown = (
        select(PictureRow.id, PictureRow.number, PictureRow.created, BoardPictureRow.board)
        .join(BoardPictureRow, BoardPictureRow.picture == PictureRow.number)
        .where(PictureRow.trashed.is_(None))
        .subquery()
    )
    place = func.row_number().over(partition_by=shown.c.board, order_by=(shown.c.created.desc(), shown.c.number.desc()))
    count = func.count().over(partition_by=shown.c.board)
    ranked = select(shown.c.board, shown.c.id, place.label("place"), count.label("count")).subquery()
    query = (
        select(BoardRow, ranked.c.id, ranked.c.count)
        .outerjoin(ranked, (ranked.c.board == BoardRow.id) & (ranked.c.place == 1))
        .where(*conditions)
        .order_by(BoardRow.name, BoardRow.id)
    )
    return [
        Board(id=row.id, user=row.user, name=row.name, created=row.created, count=count or 0, cover=cover)
        for row, cover, count in session.execute(query)
    ]


def _check_name(session: Session, user: str, name: str) -> None:
    if session.scalar(select(exists().where(BoardRow.user == user, BoardRow.name == name))):
        raise ConflictError(f"there is a board {name!r} already; choose another name.")
