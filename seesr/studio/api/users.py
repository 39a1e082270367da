"""Routes of users and of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from seesr.studio.access import require_admin
from seesr.studio.api.dependencies import Admin, AnyAccounts, AnyStudio, AnyUser
from seesr.studio.api.failures import FAILURES_OF_FILES
from seesr.studio.api.jobs import Id
from seesr.studio.api.schemas import FreshKey, Key, NewKey, NewPassword, NewUser, UserChange, WebhookSecret
from seesr.studio.errors import NotFoundError
from seesr.studio.records import Preferences, User

router = APIRouter(tags=["users"])
Name = Annotated[str, Path(max_length=64)]


@router.get("/me")
def me(user: AnyUser) -> User:
    """The user who asks."""
    return user


@router.get("/me/preferences")
def preferences(studio: AnyStudio, user: AnyUser) -> Preferences:
    """What one has chosen for the page."""
    return studio.preferences(user)


@router.patch("/me/preferences")
def change_preferences(studio: AnyStudio, user: AnyUser, changes: Preferences) -> Preferences:
    """Changes what is given of one's preferences."""
    return studio.set_preferences(user, changes)


@router.delete("/me/fields", status_code=204)
def forget_fields(studio: AnyStudio, user: AnyUser) -> Response:
    """Forgets the values that the page remembers of all its fields."""
    studio.forget_fields(user)
    return Response(status_code=204)


@router.get("/me/keys")
def keys(accounts: AnyAccounts, user: AnyUser) -> list[Key]:
    """One's keys, without their secrets."""
    return [Key.model_validate(key) for key in accounts.keys(user.name)]


@router.post("/me/keys", status_code=201)
def add_key(accounts: AnyAccounts, user: AnyUser, new: NewKey) -> FreshKey:
    """Makes a key, which is shown this once."""
    return FreshKey(key=accounts.add_key(user.name, new.label))


@router.delete("/me/keys/{key}", status_code=204)
def remove_key(accounts: AnyAccounts, user: AnyUser, key: Id) -> Response:
    """Makes a key invalid."""
    accounts.remove_key(user.name, key)
    return Response(status_code=204)


@router.post("/me/webhook-secret", status_code=201)
def renew_webhook_secret(studio: AnyStudio, user: AnyUser) -> WebhookSecret:
    """Makes a new secret with which one's webhooks are signed from now on; it is shown this once."""
    return WebhookSecret(secret=studio.webhooks.renew_secret(user.name))


@router.get("/users")
def users(accounts: AnyAccounts, admin: Admin) -> list[User]:
    """All users; for admins."""
    del admin
    return accounts.users()


@router.post("/users", status_code=201)
def add_user(accounts: AnyAccounts, admin: Admin, new: NewUser) -> User:
    """Makes a user; for admins. The first one is an admin, and from then on everybody must log in."""
    del admin
    return accounts.add_user(new.name, new.password, new.role)


@router.patch("/users/{name}")
def change_user(accounts: AnyAccounts, user: AnyUser, name: Name, changes: UserChange) -> User:
    """Changes the role of a user, keeps one out, or lets one in again; for admins."""
    _require_self(user, name)
    require_admin(user, "change a user")
    return accounts.change_user(name, changes.role, changes.disabled)


@router.delete("/users/{name}", status_code=204)
def remove_user(studio: AnyStudio, user: AnyUser, name: Name) -> Response:
    """Removes oneself, or for admins another user, with all jobs, pictures and keys."""
    _require_self(user, name)
    studio.delete_user(user, name)
    return Response(status_code=204)


@router.put("/users/{name}/password", status_code=204)
def set_password(accounts: AnyAccounts, user: AnyUser, name: Name, new: NewPassword) -> Response:
    """Sets one's own password, or for admins another's; the user's sessions end."""
    _require_self(user, name)
    accounts.set_password(name, new.password)
    return Response(status_code=204)


@router.get(
    "/users/{name}/export",
    response_class=StreamingResponse,
    responses={**FAILURES_OF_FILES, 200: {"content": {"application/zip": {}}, "description": "A zip file."}},
)
def export(studio: AnyStudio, user: AnyUser, name: Name) -> StreamingResponse:
    """All jobs and pictures of oneself, or for admins of another user, as a zip file."""
    _require_self(user, name)
    content: Iterator[bytes] = studio.export_user(user, name)
    headers = {"Content-Disposition": 'attachment; filename="seesr.zip"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(content, media_type="application/zip", headers=headers)


def _require_self(user: User, name: str) -> None:
    """Raises NotFoundError unless `name` is the user's own, or the user is an admin."""
    if name != user.name and not user.is_admin:
        raise NotFoundError("there is no such user.")
