"""Errors in A1111's form: `error`, `detail`, `body` and `errors`; of a body that does not fit, FastAPI's `detail`."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from seesr.errors import SeeSRError
from seesr.studio.api.error_route import ErrorRoute
from seesr.studio.api.schemas import ErrorAnswer
from seesr.studio.errors import StudioError, status_of


class UnprocessableError(StudioError):
    """A picture cannot be read, or a script is unknown."""

    status = 422


class SdapiError(BaseModel):
    """The body of an answer that tells of an error."""

    error: str
    detail: str
    body: str = ""
    errors: str


class InvalidField(BaseModel):
    """A field that does not fit, without what was sent in it."""

    loc: list[str | int]
    msg: str
    type: str


class InvalidBody(BaseModel):
    """The body of an answer to a body that does not fit."""

    detail: list[InvalidField]


FROM_DOOR = {
    401: "Nobody is logged in.",
    403: "A page of another site asks.",
    413: "The body is too large.",
}
FAILURES = {
    400: "A value is outside its limits, or the body cannot be read.",
    404: "There is no such sampler, checkpoint, VAE or ControlNet, or a picture was not sent.",
    429: "A limit of the operator's.",
    500: "The job failed.",
    507: "The disk is full.",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    **{status: {"model": ErrorAnswer, "description": text} for status, text in FROM_DOOR.items()},
    **{status: {"model": SdapiError, "description": text} for status, text in FAILURES.items()},
    422: {"model": SdapiError | InvalidBody, "description": "A picture cannot be read, or a field is of another form."},
}
"""What each status tells, for the description of the API."""


class SdapiRoute(ErrorRoute):
    """A route that tells errors as A1111 does, and never repeats what was sent."""

    def tell_error(self, error: SeeSRError) -> Response:
        return _answer(error, str(error), status_of(error))

    def tell_invalid(self, error: RequestValidationError) -> Response:
        details = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
        return JSONResponse({"detail": details}, 422)

    def tell_http_error(self, error: HTTPException) -> Response:
        return _answer(error, error.detail, error.status_code)


def _answer(error: Exception, message: str, status: int) -> Response:
    answer = SdapiError(error=type(error).__name__, detail=message, errors=message)
    return JSONResponse(answer.model_dump(), status)
