"""Finished pictures and uploads in the store; their files are beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, exists, func, select, tuple_
from sqlalchemy.orm import Session

from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.records import ALL_PICTURES, PictureRecord, PictureSearch, Term, TermKind
from seesr.studio.store.database import PAGE, Database, all_pages, row_of
from seesr.studio.store.tables import BoardPictureRow, InputRow, JobInputRow, JobRow, PictureRow, TermRow, now
from seesr.studio.store.terms import fold, picture_terms, words


class PictureStore(Database):
    """The rows of pictures."""

    def add_picture(self, record: PictureRecord) -> None:
        """Keeps a picture, whose file is in its place by now.

        Raises:
            NotFoundError: its job has been removed.
            ConflictError: it is kept already, or its job has another picture with this index.
        """
        with self._write() as session:
            if record.job is not None and not session.scalar(select(exists().where(JobRow.id == record.job))):
                raise NotFoundError(f"there is no job {record.job!r} to which the picture {record.id!r} could belong.")
            is_same = PictureRow.id == record.id
            if record.job is not None:
                is_same |= (PictureRow.job == record.job) & (PictureRow.index == record.index)
            if session.scalar(select(exists().where(is_same))):
                raise ConflictError(f"the picture {record.id!r}, or another one in its place, is kept already.")
            row = PictureRow(**record.model_dump())
            session.add(row)
            session.flush()
            _index(session, row)

    def picture(self, id: str) -> PictureRecord:
        """A picture.

        Raises:
            NotFoundError: there is no such picture.
        """
        with self._read() as session:
            return picture_record(row_of(session, PictureRow, id, "picture"))

    def pictures(
        self, user: str | None = None, before: str | None = None, count: int = 50, search: PictureSearch = ALL_PICTURES
    ) -> list[PictureRecord]:
        """Pictures, the newest first; of all users where `user` is None. Two queries, however many pictures there are.

        Args:
            before: id of the last picture of the page before.

        Raises:
            NotFoundError: there is no picture `before`.
        """
        with self._read() as session:
            query = _found(search).order_by(PictureRow.created.desc(), PictureRow.number.desc()).limit(count)
            if user is not None:
                query = query.where(PictureRow.user == user)
            if before is not None:
                last = row_of(session, PictureRow, before, "picture")
                query = query.where(tuple_(PictureRow.created, PictureRow.number) < tuple_(last.created, last.number))
            return [picture_record(row) for row in session.scalars(query)]

    def all_pictures(self, user: str | None = None, search: PictureSearch = ALL_PICTURES) -> Iterator[PictureRecord]:
        """All that `pictures` lists, which are read as they are asked for."""
        return all_pages(lambda before: self.pictures(user, before, PAGE, search))

    def change_picture(self, id: str, favourite: bool | None = None, tags: Collection[str] | None = None) -> PictureRecord:
        """Marks a picture as a favourite or not, and gives it other tags; None leaves either as it is.

        Raises:
            NotFoundError: there is no such picture.
        """
        with self._write() as session:
            row = row_of(session, PictureRow, id, "picture")
            if favourite is not None:
                row.favourite = favourite
            if tags is not None:
                row.tags = list(dict.fromkeys(tags))
                _index(session, row)
            return picture_record(row)

    def trash_pictures(self, user: str | None, ids: Collection[str]) -> list[PictureRecord]:
        """Puts pictures of a user, or of anybody, into the trash; those that are there stay as they are.

        Raises:
            NotFoundError: there is no picture of one of these ids; nothing has changed.
        """
        with self._write() as session:
            rows = _rows(session, user, ids)
            moment = now()
            for row in rows:
                row.trashed = row.trashed or moment
            return [picture_record(row) for row in rows]

    def restore_pictures(self, user: str | None, ids: Collection[str]) -> list[PictureRecord]:
        """Takes pictures of a user, or of anybody, out of the trash.

        Raises:
            NotFoundError: there is no picture of one of these ids; nothing has changed.
        """
        with self._write() as session:
            rows = _rows(session, user, ids)
            for row in rows:
                row.trashed = None
            return [picture_record(row) for row in rows]

    def empty_trash(self, user: str | None = None, older_than: datetime | None = None) -> list[PictureRecord]:
        """Removes the rows of the pictures in the trash, of a user or of all, that were put there before a moment.

        Returns:
            these pictures, whose files remain to be removed.
        """
        conditions: list[ColumnElement[bool]] = [PictureRow.trashed.is_not(None)]
        if user is not None:
            conditions.append(PictureRow.user == user)
        if older_than is not None:
            conditions.append(PictureRow.trashed < older_than)
        with self._write() as session:
            return delete_pictures(session, *conditions)

    def has_picture(self, user: str, digest: str) -> bool:
        """Whether a user has a picture with this content, in the trash or not."""
        with self._read() as session:
            query = select(exists().where(PictureRow.user == user, PictureRow.digest == digest))
            return session.scalar(query) or False

    def terms(self, kind: TermKind, user: str | None = None, count: int = 200) -> list[Term]:
        """What most pictures are found by, of a user or of all, without those in the trash."""
        number = func.count()
        query = (
            select(TermRow.term, number)
            .join(PictureRow, PictureRow.number == TermRow.picture)
            .where(TermRow.kind == kind, PictureRow.trashed.is_(None))
            .group_by(TermRow.term)
            .order_by(number.desc(), TermRow.term)
            .limit(count)
        )
        if user is not None:
            query = query.where(PictureRow.user == user)
        with self._read() as session:
            return [Term(name=name, count=found) for name, found in session.execute(query)]

    def picture_ids(self) -> set[str]:
        """Ids of all pictures: a file of another id belongs to no row."""
        with self._read() as session:
            return set(session.scalars(select(PictureRow.id)))

    def remove_picture(self, id: str) -> PictureRecord:
        """Removes the row of a picture, whose file remains to be removed.

        Raises:
            NotFoundError: there is no such picture.
        """
        with self._write() as session:
            row = row_of(session, PictureRow, id, "picture")
            session.delete(row)
            return picture_record(row)

    def prune_pictures(self, older_than: datetime, user: str | None = None) -> list[PictureRecord]:
        """Removes the rows of the pictures, of a user or of all, that were made before a moment.

        Returns:
            these pictures, whose files remain to be removed.
        """
        conditions: list[ColumnElement[bool]] = [PictureRow.created < older_than]
        if user is not None:
            conditions.append(PictureRow.user == user)
        with self._write() as session:
            return delete_pictures(session, *conditions)

    def used_bytes(self, user: str) -> int:
        """Bytes of a user's pictures and uploads."""
        with self._read() as session:
            return sum(
                session.scalars(select(func.coalesce(func.sum(table.size), 0)).where(table.user == user)).one()
                for table in (PictureRow, InputRow)
            )

    def add_input(self, user: str, digest: str, size: int) -> None:
        """Notes that a user has uploaded a picture, by its content hash and its bytes, and may name it in requests."""
        with self._write() as session:
            session.merge(InputRow(user=user, digest=digest, size=size, created=now()))

    def has_input(self, user: str, digest: str) -> bool:
        """Whether a user has uploaded this picture."""
        with self._read() as session:
            return session.scalar(select(exists().where(InputRow.user == user, InputRow.digest == digest))) or False

    def expire_inputs(self, older_than: datetime) -> None:
        """Forgets uploads from before a moment that no job of their user takes."""
        taken = (
            exists()
            .where(JobInputRow.digest == InputRow.digest, JobInputRow.job == JobRow.id, JobRow.user == InputRow.user)
            .correlate(InputRow)
        )
        with self._write() as session:
            session.execute(
                delete(InputRow).where(InputRow.created < older_than, ~taken),
                execution_options={"synchronize_session": False},
            )


def picture_record(row: PictureRow) -> PictureRecord:
    """The record of a row."""
    return PictureRecord(**{name: getattr(row, name) for name in PictureRecord.model_fields})


def delete_pictures(session: Session, *conditions: ColumnElement[bool]) -> list[PictureRecord]:
    """Removes the rows of pictures; their files remain to be removed."""
    query = delete(PictureRow).where(*conditions).returning(PictureRow)
    return [picture_record(row) for row in session.scalars(query)]


def _found(search: PictureSearch) -> Select[PictureRow]:
    """The pictures of a search."""
    in_trash = PictureRow.trashed.is_not(None) if search.trash else PictureRow.trashed.is_(None)
    query = select(PictureRow).where(in_trash)
    wanted: dict[TermKind, list[str]] = {
        "word": words(search.words),
        "tag": [fold(tag) for tag in search.tags],
        "lora": [fold(search.lora)] if search.lora else [],
        "checkpoint": [fold(search.checkpoint)] if search.checkpoint else [],
    }
    for kind, term in ((kind, term) for kind, terms in wanted.items() for term in terms):
        has_term = exists().where(TermRow.kind == kind, TermRow.term == term, TermRow.picture == PictureRow.number)
        query = query.where(has_term)
    if search.since is not None:
        query = query.where(PictureRow.created >= search.since)
    if search.until is not None:
        query = query.where(PictureRow.created < search.until)
    if search.favourite:
        query = query.where(PictureRow.favourite)
    if search.board is not None:
        on_board = exists().where(BoardPictureRow.board == search.board, BoardPictureRow.picture == PictureRow.number)
        query = query.where(on_board)
    if search.ids:
        query = query.where(PictureRow.id.in_(search.ids))
    return query


def _index(session: Session, row: PictureRow) -> None:
    """Keeps what a picture is found by."""
    session.execute(delete(TermRow).where(TermRow.picture == row.number))
    terms = picture_terms(row.settings, row.tags)
    session.add_all(TermRow(kind=kind, term=term, picture=row.number) for kind, term in terms)


def _rows(session: Session, user: str | None, ids: Collection[str]) -> Sequence[PictureRow]:
    """Pictures that are all a user's."""
    query = select(PictureRow).where(PictureRow.id.in_(ids))
    if user is not None:
        query = query.where(PictureRow.user == user)
    rows = session.scalars(query).all()
    if missing := sorted(set(ids) - {row.id for row in rows}):
        raise NotFoundError(f"there is no picture {missing[0]!r}; list the pictures to see their ids.")
    return rows
