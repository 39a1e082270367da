"""What the routes are given: the studio, its accounts, lists of its models, and who asks.

`create_app` puts `studio`, `accounts`, `pulls` and `model_lists` into the app's state; the door puts `user` into
that of each request.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from seesr.studio.accounts import Accounts
from seesr.studio.api.model_lists import ModelLists
from seesr.studio.errors import ForbiddenError
from seesr.studio.records import User
from seesr.studio.studio import Studio


def _studio(connection: HTTPConnection) -> Studio:
    return connection.app.state.studio


def _accounts(connection: HTTPConnection) -> Accounts:
    return connection.app.state.accounts


def _models(connection: HTTPConnection) -> ModelLists:
    return connection.app.state.model_lists


def _user(connection: HTTPConnection) -> User:
    return connection.state.user


def _admin(connection: HTTPConnection) -> User:
    user: User = connection.state.user
    if not user.is_admin:
        raise ForbiddenError("only an admin may do this; ask one.")
    return user


AnyStudio = Annotated[Studio, Depends(_studio)]
AnyAccounts = Annotated[Accounts, Depends(_accounts)]
AnyModels = Annotated[ModelLists, Depends(_models)]
AnyUser = Annotated[User, Depends(_user)]
Admin = Annotated[User, Depends(_admin)]
"""The user who asks, where only an admin may.

Raises:
    ForbiddenError: it is none.
"""
