"""What these routes are given beside what all are: the models, and a user's options."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from seesr.errors import OptionError
from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.sdapi.models import ModelLists
from seesr.studio.api.sdapi.user_options import UserOptions

SETTING = "sdapi"
"""Under which the store keeps a user's options."""


def _models(request: Request) -> ModelLists:
    return request.app.state.sdapi_models


def _options(studio: AnyStudio, user: AnyUser) -> UserOptions:
    try:
        return UserOptions.of(studio.setting(user, SETTING) or {})
    except OptionError:  # kept by a version with other limits
        return UserOptions()


AnyModels = Annotated[ModelLists, Depends(_models)]
AnyOptions = Annotated[UserOptions, Depends(_options)]
