"""Errors in the form of an API that is not ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from seesr.errors import SeeSRError


class ErrorRoute(APIRoute, ABC):
    """A route that tells errors in its API's own form, in place of the app's."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except SeeSRError as error:
                return self.tell_error(error)
            except RequestValidationError as error:
                return self.tell_invalid(error)
            except HTTPException as error:
                return self.tell_http_error(error)

        return handle_errors

    @abstractmethod
    def tell_error(self, error: SeeSRError) -> Response:
        """What a user can correct."""

    @abstractmethod
    def tell_invalid(self, error: RequestValidationError) -> Response:
        """What does not fit the schema; never with what was sent."""

    @abstractmethod
    def tell_http_error(self, error: HTTPException) -> Response:
        """What Starlette and FastAPI refuse, such as a body that is no JSON at all."""
