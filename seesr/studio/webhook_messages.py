"""What webhooks say: a job in the form of Cog's HTTP API, signed as Standard Webhooks do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seesr.jobs import EventKind, JobEvent, JobRequest, TagsRequest
from seesr.studio.records import Job, JobState, WebhookEvent

LIVE_SECONDS = 0.5
"""Between two messages of a job that runs."""
STATES: dict[JobState, str] = {
    "pending": "starting",
    "running": "processing",
    "done": "succeeded",
    "failed": "failed",
    "interrupted": "failed",
    "cancelled": "canceled",
}
"""What Cog calls them."""
TOLD_AS: dict[EventKind, WebhookEvent] = {
    "started": "start",
    "picture": "output",
    "tags": "output",
    "progress": "logs",
    "note": "logs",
}


@dataclass
class LiveJob:
    """What was said so far of a job that runs."""

    job: Job
    pictures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tags: dict[str, Any] | None = None
    progress: str = ""
    messages: int = 0
    is_changed: bool = False
    is_failing: bool = False
    next_moment: float = 0.0

    def add(self, event: JobEvent) -> None:
        data = event.data
        match event.kind:
            case "picture":
                self.pictures.append(data["id"])
            case "tags":
                self.tags = data.get("tags")
            case "note":
                self.notes.append(str(data["text"]))
            case "progress":
                self.progress = f"{data.get('stage')} {data.get('step', 0)}/{data.get('steps', 0)}"
            case _:
                pass

    def is_ready(self) -> bool:
        return self.is_changed and not self.is_failing and self.next_moment <= time.monotonic()

    def message(self) -> tuple[Job, str, dict[str, Any]]:
        """The job, an id and the content of what is told now."""
        self.messages += 1
        self.is_changed, self.next_moment = False, time.monotonic() + LIVE_SECONDS
        lines = [*self.notes, *([self.progress] if self.progress else [])]
        return self.job, f"msg_{self.job.id}_{self.messages}", _cog_object(self.job, self.pictures, self.tags, lines)


def cog_object(job: Job) -> dict[str, Any]:
    """A job as Cog's HTTP API shows a prediction (docs/http.md of Cog); its output is addresses of pictures, or tags."""
    return _cog_object(job, [picture.id for picture in job.pictures], job.result.get("tags"), job.notes)


def signed_headers(secret: bytes, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message, signed as version 1 of the Standard Webhooks specification says.

    Args:
        id: stays the same when the message is sent again.
        timestamp: seconds since 1970.
    """
    signature = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _cog_object(job: Job, pictures: Sequence[str], tags: dict[str, Any] | None, lines: Sequence[str]) -> dict[str, Any]:
    base = job.webhook.studio.rstrip("/") if job.webhook else ""
    seconds = (job.ended - job.started).total_seconds() if job.ended and job.started else None
    return {
        "id": job.id,
        "status": STATES[job.state],
        "input": job.request.model_dump(mode="json"),
        "output": _output(job.request, base, pictures, tags),
        "error": job.error,
        "logs": "\n".join(lines),
        "metrics": {} if seconds is None else {"predict_time": seconds},
        "created_at": job.created.isoformat(),
        "started_at": job.started and job.started.isoformat(),
        "completed_at": job.ended and job.ended.isoformat(),
    }


def _output(
    request: JobRequest, base: str, pictures: Sequence[str], tags: dict[str, Any] | None
) -> list[str] | dict[str, Any] | None:
    if isinstance(request, TagsRequest):
        return tags
    return [f"{base}/api/v1/pictures/{picture}/file" for picture in pictures] or None
