"""What these routes are given beside what all are: a user's options."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from seesr.errors import OptionError
from seesr.studio.api.dependencies import AnyStudio, AnyUser
from seesr.studio.api.sdapi.user_options import UserOptions

SETTING = "sdapi"
"""Under which the store keeps a user's options."""


def _options(studio: AnyStudio, user: AnyUser) -> UserOptions:
    try:
        return UserOptions.of(studio.setting(user, SETTING) or {})
    except OptionError:  # kept by a version with other limits
        return UserOptions()


AnyOptions = Annotated[UserOptions, Depends(_options)]
