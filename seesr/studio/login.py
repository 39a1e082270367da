"""Logging in and out: a session, which the browser keeps in a cookie that no script reads."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from seesr.studio.api.dependencies import AnyAccounts
from seesr.studio.door import SESSION_COOKIE
from seesr.studio.records import User

router = APIRouter(tags=["login"])


class Login(BaseModel):
    """A name and its password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=100)
    password: str = Field(max_length=1000, repr=False)


@router.post("/login")
def log_in(login: Login, accounts: AnyAccounts, request: Request, response: Response) -> User:
    """Begins a session."""
    address = request.client.host if request.client else ""
    user, token = accounts.log_in(login.name, login.password, address)
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=accounts.session_seconds,
        path=request.scope.get("root_path") or "/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )
    return user


@router.post("/logout", status_code=204)
def log_out(accounts: AnyAccounts, request: Request, response: Response) -> None:
    """Ends the session."""
    if token := request.cookies.get(SESSION_COOKIE):
        accounts.log_out(token)
    response.delete_cookie(SESSION_COOKIE, path=request.scope.get("root_path") or "/")
