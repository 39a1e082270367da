"""The answers that tell of errors: their bodies and headers."""

from __future__ import annotations

from starlette.datastructures import Headers

from seesr.errors import SeeSRError
from seesr.studio.errors import TooManyTriesError, UnauthorizedError


def error_body(error: SeeSRError | str, code: str | None = None) -> dict[str, dict[str, str]]:
    """The body of an answer that tells of an error."""
    return {"error": {"message": str(error), "code": code or error_code(type(error))}}


def openai_error(error: Exception | str, status: int, param: str | None = None) -> dict[str, dict[str, str | None]]:
    """The same in OpenAI's form."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    code = None if isinstance(error, str) else error_code(type(error))
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def error_code(kind: type) -> str:
    """`not_found` of `NotFoundError`."""
    name = kind.__name__.removesuffix("Error")
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).strip("_")


def challenges(error: SeeSRError, headers: Headers, path: str) -> dict[str, str]:
    """Headers of an answer that tells of an error."""
    if isinstance(error, TooManyTriesError):
        return {"retry-after": str(error.retry_after)}
    # A browser would ask for a name and password of its own accord, over the page.
    if isinstance(error, UnauthorizedError) and "sec-fetch-mode" not in headers:
        return {"www-authenticate": "Bearer" if path.startswith("/v1") else 'Basic realm="SeeSR", charset="UTF-8"'}
    return {}
