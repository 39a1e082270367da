"""Finished pictures and uploads in the store; their files are beside it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.records import PictureRecord
from seesr.studio.store.database import Database
from seesr.studio.store.tables import InputRow, JobInputRow, JobRow, PictureRow, now


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
            same_place = (PictureRow.job == record.job) & (PictureRow.index == record.index)
            if session.scalar(select(exists().where((PictureRow.id == record.id) | same_place))):
                raise ConflictError(f"the picture {record.id!r}, or another one in its place, is kept already.")
            session.add(PictureRow(**record.model_dump()))

    def picture(self, id: str) -> PictureRecord:
        """A picture.

        Raises:
            NotFoundError: there is no such picture.
        """
        with self._read() as session:
            return picture_record(_row(session, id))

    def pictures(self, user: str | None = None, before: str | None = None, count: int = 50) -> list[PictureRecord]:
        """Pictures, the newest first; of all users where `user` is None.

        Args:
            before: id of the last picture of the page before.

        Raises:
            NotFoundError: there is no picture `before`.
        """
        with self._read() as session:
            query = select(PictureRow).order_by(PictureRow.number.desc()).limit(count)
            if user is not None:
                query = query.where(PictureRow.user == user)
            if before is not None:
                query = query.where(PictureRow.number < _row(session, before).number)
            return [picture_record(row) for row in session.scalars(query)]

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
            row = _row(session, id)
            session.delete(row)
            return picture_record(row)

    def prune_pictures(self, older_than: datetime, user: str | None = None) -> list[PictureRecord]:
        """Removes the rows of the pictures, of a user or of all, that were made before a moment.

        Returns:
            these pictures, whose files remain to be removed.
        """
        query = delete(PictureRow).where(PictureRow.created < older_than)
        if user is not None:
            query = query.where(PictureRow.user == user)
        with self._write() as session:
            return [picture_record(row) for row in session.scalars(query.returning(PictureRow))]

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


def _row(session: Session, id: str) -> PictureRow:
    row = session.scalars(select(PictureRow).where(PictureRow.id == id)).first()
    if row is None:
        raise NotFoundError(f"there is no picture {id!r}; list the pictures to see their ids.")
    return row
