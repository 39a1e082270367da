"""The native API, below `/api/v1`: everything that the studio does."""

from __future__ import annotations

from fastapi import APIRouter

from seesr.studio.api import events, facts, gallery, jobs, models, pictures, prompts, users
from seesr.studio.api.failures import FAILURES

PREFIX = "/api/v1"
router = APIRouter(prefix=PREFIX, responses=FAILURES)
for part in (jobs, events, pictures, gallery, users, facts, prompts, models):
    router.include_router(part.router)
