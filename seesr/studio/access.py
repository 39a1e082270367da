"""Who may do what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from seesr.studio.errors import ForbiddenError, NotFoundError
from seesr.studio.records import User

EVERYBODY = "*"
"""In place of a user's name, where the things of all are listed."""


class HasUser(Protocol):
    """What is somebody's."""

    @property
    def user(self) -> str: ...


Owned = TypeVar("Owned", bound=HasUser)


def may_see(user: User, owner: str) -> bool:
    """Whether a user may use what is the owner's."""
    return user.is_admin or user.name == owner


def visible(user: User, what: str, id: str, read: Callable[[str], Owned]) -> Owned:
    """What `read` finds by an id, if the user may see it.

    Args:
        what: it is, for the error.

    Raises:
        NotFoundError: there is none, or it is another user's, which nobody is to learn.
    """
    try:
        record = read(id)
    except NotFoundError:
        record = None
    if record is None or not may_see(user, record.user):
        raise NotFoundError(f"there is no {what} {id!r}.")
    return record


def require_admin(user: User, what: str) -> None:
    """Raises ForbiddenError unless the user is an admin."""
    if not user.is_admin:
        raise ForbiddenError(f"only an admin may {what}.")


def owner_of(user: User, of: str | None) -> str | None:
    """Whose things are listed for a user who asks for those `of` somebody; None is everybody.

    Raises:
        ForbiddenError: they are another user's.
    """
    if of is None or of == user.name:
        return user.name
    require_admin(user, "list what is another user's")
    return None if of == EVERYBODY else of
