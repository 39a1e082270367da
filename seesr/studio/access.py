"""Who may do what."""

from __future__ import annotations

from seesr.studio.errors import ForbiddenError
from seesr.studio.records import User

EVERYBODY = "*"
"""In place of a user's name, where the things of all are listed."""


def may_see(user: User, owner: str) -> bool:
    """Whether a user may use what is the owner's."""
    return user.is_admin or user.name == owner


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
