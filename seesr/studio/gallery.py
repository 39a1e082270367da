"""The gallery: finished pictures, as users find, keep, collect, remove and download them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from seesr.studio.access import owner_of, visible
from seesr.studio.archive import archive_pictures
from seesr.studio.errors import NotFoundError, StorageError
from seesr.studio.files import FileStore
from seesr.studio.records import ALL_PICTURES, Board, PictureRecord, PictureSearch, Term, TermKind, User

if TYPE_CHECKING:
    from seesr.studio.store import Store

logger = logging.getLogger("seesr.studio")


class Gallery:
    """The pictures of a store and its files, for users. Thread-safe.

    Every method raises NotFoundError for what is another user's. Admins may do everything.
    """

    def __init__(self, store: Store, files: FileStore) -> None:
        self.store, self.files = store, files

    def picture(self, user: User, id: str) -> PictureRecord:
        """A finished picture, also one in the trash."""
        return visible(user, "picture", id, self.store.picture)

    def pictures(
        self,
        user: User,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
        search: PictureSearch = ALL_PICTURES,
    ) -> list[PictureRecord]:
        """Pictures, newest first.

        Args:
            before: the last one of the page before.
            of: whose; None is the user, and `*` everybody.
        """
        owner = owner_of(user, of)
        if before is not None:
            self.picture(user, before)
        self._check_board(user, search)
        return self.store.pictures(owner, before, count, search)

    def picture_content(self, user: User, id: str) -> tuple[PictureRecord, Path]:
        """A finished picture, and where its file is.

        Raises:
            NotFoundError: there is no such picture, it is in the trash, or somebody has removed its file.
            StorageError: it is kept elsewhere, and that does not answer.
        """
        picture = self.picture(user, id)
        if picture.trashed:
            raise NotFoundError(f"the picture {id!r} is in the trash; restore it first.")
        path = self.files.path(picture)
        if not path.is_file():
            raise NotFoundError(f"the file of the picture {id!r} is gone; remove the picture.")
        return picture, path

    def thumbnail(self, user: User, id: str) -> tuple[PictureRecord, Path]:
        """A picture, also one in the trash, and where its thumbnail is: a WebP of at most 384 pixels a side.

        Raises:
            NotFoundError: as `picture_content`.
            InputError: the file is damaged.
            FullDiskError, StorageError: as of files.
        """
        picture = self.picture(user, id)
        return picture, self.files.thumbnail(picture)

    def change_picture(
        self, user: User, id: str, favourite: bool | None = None, tags: Collection[str] | None = None
    ) -> PictureRecord:
        """Marks a picture as a favourite or not, and gives it other tags; None leaves either as it is."""
        self.picture(user, id)
        return self.store.change_picture(id, favourite, tags)

    def remove_picture(self, user: User, id: str) -> None:
        """Puts a picture into the trash."""
        self.trash(user, [id])

    def trash(self, user: User, ids: Collection[str]) -> list[PictureRecord]:
        """Puts pictures into the trash, all or none; after a time they are removed."""
        return self.store.trash_pictures(None if user.is_admin else user.name, ids)

    def restore(self, user: User, ids: Collection[str]) -> list[PictureRecord]:
        """Takes pictures out of the trash, all or none."""
        return self.store.restore_pictures(None if user.is_admin else user.name, ids)

    def empty_trash(self, user: User) -> int:
        """Removes the user's own pictures that are in the trash.

        Returns:
            Their number.
        """
        removed = self.store.empty_trash(user.name)
        self.remove_files(removed)
        return len(removed)

    def terms(self, user: User, kind: TermKind, of: str | None = None) -> list[Term]:
        """What most pictures are found by: words, tags, LoRAs or checkpoints."""
        return self.store.terms(kind, owner_of(user, of))

    def archive(self, user: User, search: PictureSearch, of: str | None = None) -> Iterator[bytes]:
        """The files of the pictures of a search: a ZIP file in parts, as `YYYY-MM-DD/<id>.<suffix>`."""
        self._check_board(user, search)
        return archive_pictures(self.files, self.store.all_pictures(owner_of(user, of), search))

    def remove_files(self, pictures: Iterable[PictureRecord]) -> None:
        """Removes the files of pictures whose rows are gone; what a storage does not remove, the log names."""
        for picture in pictures:
            try:
                self.files.remove(picture)
            except StorageError:
                logger.warning("the file of the picture %s, of %s, stays", picture.id, picture.created.date())

    def _check_board(self, user: User, search: PictureSearch) -> None:
        if search.board is not None:
            self.board(user, search.board)

    # Boards.

    def board(self, user: User, id: str) -> Board:
        """A board."""
        return visible(user, "board", id, self.store.board)

    def boards(self, user: User, of: str | None = None, picture: str | None = None) -> list[Board]:
        """Boards by name; with `picture` those on which it is."""
        owner = owner_of(user, of)
        if picture is not None:
            self.picture(user, picture)
        return self.store.boards(owner, picture)

    def add_board(self, user: User, name: str) -> Board:
        """Makes an empty board.

        Raises:
            ConflictError: the user has one of this name.
        """
        return self.store.add_board(user.name, name)

    def change_board(
        self, user: User, id: str, name: str | None = None, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> Board:
        """Gives a board another name, puts pictures of its user on it, and takes others from it.

        Raises:
            ConflictError: the user has another board of this name.
        """
        board = self.board(user, id)
        if add or remove:
            board = self.store.change_board(id, add, remove)
        return board if name is None else self.store.rename_board(id, name)

    def remove_board(self, user: User, id: str) -> None:
        """Removes a board; its pictures stay."""
        self.board(user, id)
        self.store.remove_board(id)
