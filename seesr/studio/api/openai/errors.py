"""Errors in OpenAI's form: `message`, `type`, `param` and `code`."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from seesr.errors import SeeSRError
from seesr.options import lower_first
from seesr.studio.api.error_route import ErrorRoute
from seesr.studio.api.failures import MEANINGS
from seesr.studio.error_bodies import openai_error
from seesr.studio.errors import JobFailedError, NotFoundError, StudioError, status_of

NO_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's clients not to send a request again that failed once it was run."""


class FieldError(StudioError):
    """A field cannot be honoured."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(NotFoundError):
    """There is no such checkpoint."""

    param = "model"


class OpenAIError(BaseModel):
    """What went wrong, in one sentence, and where."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorAnswer(BaseModel):
    """The answer of every request that fails."""

    error: OpenAIError


FAILURES: dict[int | str, dict[str, Any]] = {
    **{status: {"model": OpenAIErrorAnswer, "description": meaning} for status, meaning in MEANINGS.items()},
    422: {"description": "Never: it is 400 here."},
    500: {"model": OpenAIErrorAnswer, "description": "The job failed."},
}
"""What each status tells, for the description of the API."""


class OpenAIRoute(ErrorRoute):
    """A route that tells errors as OpenAI does."""

    def tell_error(self, error: SeeSRError) -> Response:
        status, headers = status_of(error), NO_RETRY if isinstance(error, JobFailedError) else None
        return JSONResponse(openai_error(error, status, getattr(error, "param", None)), status, headers)

    def tell_invalid(self, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = next((part for part in reversed(first["loc"]) if isinstance(part, str) and part != "body"), None)
        message = f"{param or 'the body'}: {lower_first(first['msg'])}."
        return JSONResponse(openai_error(message, 400, param), 400)

    def tell_http_error(self, error: HTTPException) -> Response:
        return JSONResponse(openai_error(f"{error.detail}", error.status_code), error.status_code)
