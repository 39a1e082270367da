"""What the description of the API says of requests that fail."""

from __future__ import annotations

from typing import Any

from seesr.studio.api.schemas import ErrorAnswer

MEANINGS = {
    400: "What is asked for is not valid.",
    401: "Nobody is logged in.",
    403: "This user may not do that.",
    404: "There is no such thing, or it is another user's.",
    409: "It does not fit the state of the thing.",
    413: "The body is too large.",
    415: "The body is of a type that is not taken.",
    421: "The header Host names another server.",
    422: "The body or a parameter is not of the right form.",
    429: "A limit of the operator's, or too many wrong passwords.",
    503: "The storage of the pictures does not answer.",
    507: "The disk is full.",
}
"""What each status tells."""
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": meaning} for status, meaning in MEANINGS.items()
}
"""`responses` of a router."""
_SCHEMA = {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}
FAILURES_OF_FILES: dict[int | str, dict[str, Any]] = {
    status: {"content": {"application/json": {"schema": _SCHEMA}}, "description": meaning}
    for status, meaning in MEANINGS.items()
}
"""`responses` of a route whose own answers are no JSON: FastAPI takes those of a model for the same type."""
