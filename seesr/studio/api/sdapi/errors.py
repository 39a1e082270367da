"""Errors in A1111's form: `error`, `detail`, `body` and `errors`; of a body that does not fit, FastAPI's `detail`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from seesr.errors import SeeSRError
from seesr.studio.errors import NotFoundError, StudioError


class UnknownNameError(NotFoundError):
    """There is no sampler or checkpoint of this name, or the picture to begin from was not sent."""


class UnprocessableError(StudioError):
    """A picture cannot be read, or a script is unknown."""

    status = 422


class JobFailedError(StudioError):
    """The job of a request failed."""

    status = 500


class SdapiRoute(APIRoute):
    """A route that tells errors as A1111 does, and never repeats what was sent."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except SeeSRError as error:
                status = error.status if isinstance(error, StudioError) else 400
                return JSONResponse(_body(type(error).__name__, str(error)), status)
            except RequestValidationError as error:
                details = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
                return JSONResponse({"detail": details}, 422)

        return handle_errors


def _body(name: str, message: str) -> dict[str, Any]:
    return {"error": name, "detail": message, "body": "", "errors": message}
