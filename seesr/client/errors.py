"""What a client of a studio raises, and which answers are errors."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from seesr.errors import SeeSRError, first_line
from seesr.studio.api.schemas import ErrorAnswer


class ClientError(SeeSRError):
    """Base of these errors."""


class UnreachableError(ClientError):
    """The studio does not answer."""


class ResponseError(ClientError):
    """The studio refused a request; the message is its own."""

    def __init__(self, message: str, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class WaitTimeoutError(ClientError):
    """A job did not end within the time that was given."""


def check(response: httpx.Response) -> None:
    """Raises ResponseError unless the studio did what was asked; its body must have been read."""
    if response.is_success:
        return
    try:
        error = ErrorAnswer.model_validate_json(response.content).error
    except ValidationError:  # a proxy's page
        reason = f"{response.status_code} {response.reason_phrase}".strip()
        raise ResponseError(f"{response.url} answered {reason}.", response.status_code) from None
    raise ResponseError(error.message, response.status_code, error.code)


def check_stream(response: httpx.Response) -> None:
    """As `check`, but where a proxy says that the studio is away, it is tried again."""
    if response.status_code not in (502, 503, 504):
        check(response)


def unreachable(address: str, error: httpx.TransportError) -> UnreachableError:
    return UnreachableError(
        f"the studio at {address} does not answer ({first_line(error)}); is `seesr studio` running there?"
    )
