"""What both clients do alike: connections, the stream of a job's events, and waits between two tries."""

from __future__ import annotations

import time
from typing import Any

import httpx

from seesr.client.calls import API, quoted
from seesr.client.errors import ClientError, UnreachableError, WaitTimeoutError
from seesr.jobs import ENDS, JobEvent
from seesr.studio.api.schemas import EventMessage
from seesr.studio.records import ENDED, Job

ADDRESS = "http://127.0.0.1:7860"
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
"""Seconds between two looks at a job, and between two tries to reach the studio; each wait is half as long again."""
TRIES = 12
"""One after the other to reach the studio again, while events are read: it may be starting anew."""
SILENCE = 60.0
"""Seconds without a sign of life after which a stream of events is taken for broken; the studio gives one each 15."""
IDLE_CONNECTION = 2.0
"""Seconds after which a connection is not used again: uvicorn closes it after 5, perhaps just when it is used."""


def client_settings(
    address: str, key: str | None, user: tuple[str, str] | None, timeout: float, transport: Any
) -> dict[str, Any]:
    """Arguments of httpx's clients."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(keepalive_expiry=IDLE_CONNECTION)
    return {
        "base_url": address,
        "headers": headers,
        "auth": user,
        "timeout": timeout,
        "transport": transport,
        "limits": limits,
    }


def stream_settings(job: str, after: int, timeout: float) -> dict[str, Any]:
    """Arguments of httpx's `stream` for the events of a job."""
    path, query = f"{API}/jobs/{quoted(job)}/events", {"after": after}
    return {"method": "GET", "url": path, "params": query, "timeout": httpx.Timeout(timeout, read=SILENCE)}


class Position:
    """How far the events of a job are read, and when it is time to give up reaching the studio again."""

    def __init__(self, after: int) -> None:
        self.after, self._failures, self.ended = after, 0, False

    def read(self, line: str) -> JobEvent | None:
        """The event of a line of the stream, unless it was read before."""
        if not line.startswith("data:"):
            return None
        event = EventMessage.model_validate_json(line.removeprefix("data:")).event()
        if event.sequence <= self.after and event.kind not in ENDS:
            return None
        self.after, self._failures = event.sequence, 0
        self.ended = event.kind in ENDS
        return event

    def wait_after(self, error: ClientError | None) -> float:
        """Seconds to wait before the next try; raises the error after too many."""
        self._failures += 1
        if self._failures >= TRIES:
            raise error or UnreachableError("the studio ended the stream of events again and again; look into its log.")
        return pause_between(self._failures)


def pause_between(tries: int) -> float:
    """Seconds to wait after so many tries."""
    return min(FIRST_WAIT * 1.5**tries, LONGEST_WAIT)


def has_ended(job: Job, deadline: float | None) -> bool:
    """Whether a job has ended; raises WaitTimeoutError if it has not at `deadline`, a moment of `time.monotonic`."""
    if job.state in ENDED:
        return True
    if deadline is not None and time.monotonic() > deadline:
        raise WaitTimeoutError(f"job {job.id} is {job.state} still; wait longer, or cancel it.")
    return False
