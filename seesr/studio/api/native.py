"""The native API, below `/api/v1`: everything that the studio does."""

from __future__ import annotations

from fastapi import APIRouter

from seesr.studio.api import events, facts, gallery, jobs, pictures, users
from seesr.studio.api.schemas import ErrorAnswer

PREFIX = "/api/v1"
FAILURES = {
    400: "What is asked for is not valid.",
    401: "Nobody is logged in.",
    403: "This user may not do that.",
    404: "There is no such thing, or it is another user's.",
    409: "It does not fit the state of the thing.",
    413: "The body is too large.",
    422: "The body or a parameter is not of the right form.",
    429: "A limit of the operator's, or too many wrong passwords.",
    503: "The storage of the pictures does not answer.",
    507: "The disk is full.",
}
"""What each status tells."""


router = APIRouter(
    prefix=PREFIX, responses={status: {"model": ErrorAnswer, "description": text} for status, text in FAILURES.items()}
)
for part in (jobs, events, pictures, gallery, users, facts):
    router.include_router(part.router)
