"""What is said of jobs while they run, for those who listen now, later, or again after their connection broke."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from seesr.jobs import ENDS, JobEvent

PASSING = ("progress", "preview")
"""Kinds that the next one of its kind replaces."""
MAX_PASSING = 200
"""Progress that is kept of a job; a listener who is slower misses the oldest."""
MAX_LASTING = 4000
"""Other events that are kept of a job: the most pictures that a job can have, with a note each."""
MAX_ENDED = 200
"""Ended jobs whose events are kept; of older ones the end alone is told, from the store."""
MAX_WAITING = 1000
"""Events of all jobs of a user that wait for a listener; one who is slower misses the oldest."""

Ended = Callable[[str], JobEvent | None]
"""The end of a job as the store knows it; None of one that has not ended."""
Waker = Callable[[], None]


class _Log:
    """The events of one job."""

    def __init__(self) -> None:
        self.last, self.is_ended = 0, False
        self.lasting, self.passing = deque[JobEvent](maxlen=MAX_LASTING), deque[JobEvent](maxlen=MAX_PASSING)

    def add(self, event: JobEvent) -> JobEvent:
        self.last += 1
        event = event.model_copy(update={"sequence": self.last})
        self.is_ended = event.kind in ENDS
        if event.kind == "preview" or self.is_ended:  # holds a picture: only the newest one is kept, while the job runs
            self.passing = deque((earlier for earlier in self.passing if earlier.kind != "preview"), MAX_PASSING)
        (self.passing if event.kind in PASSING else self.lasting).append(event)
        return event

    def after(self, sequence: int) -> list[JobEvent]:
        new = [event for events in (self.lasting, self.passing) for event in events if event.sequence > sequence]
        return sorted(new, key=lambda event: event.sequence)


class EventLog:
    """The events of jobs, with sequence numbers that count those of a job from 1. Memory is bounded; thread-safe.

    Args:
        ended: asked for the end of a job whose events are not kept.
    """

    def __init__(self, ended: Ended = lambda job: None) -> None:
        self._ended = ended
        self._lock = threading.Lock()
        self._logs = OrderedDict[str, _Log]()
        self._wakers = dict[object, tuple[str | None, str | None, Waker, deque[JobEvent]]]()

    def publish(self, user: str, event: JobEvent) -> JobEvent:
        """Adds an event of a job of `user`, and tells those who listen.

        Returns:
            The event with its sequence number. After a job's end nothing is added, and the end is returned.
        """
        with self._lock:
            log = self._logs.setdefault(event.job, _Log())
            if log.is_ended:
                return log.lasting[-1]
            event = log.add(event)
            if log.is_ended:
                self._logs.move_to_end(event.job)
                ended = [job for job, log in self._logs.items() if log.is_ended]
                for job in ended[: max(0, len(ended) - MAX_ENDED)]:
                    del self._logs[job]
            listening = [entry for entry in self._wakers.values() if event.job == entry[0] or user == entry[1]]
            for job, _, _, waiting in listening:
                if job is None:
                    waiting.append(event)
        for _, _, wake, _ in listening:
            wake()
        return event

    def progress(self, job: str) -> JobEvent | None:
        """The newest progress of a job that runs."""
        return self._newest(job, "progress")

    def preview(self, job: str) -> JobEvent | None:
        """The newest preview of a job that runs."""
        return self._newest(job, "preview")

    def subscribe(self, job: str, after: int = 0, timeout: float | None = None) -> Iterator[JobEvent]:
        """The events of a job after the one of number `after`: first those that are kept, then each as it comes.

        Ends after the job's last event, or when nothing came for `timeout` seconds.
        """
        new = threading.Event()
        with self._listening(new.set, job=job):
            while True:
                new.clear()
                events, is_last = self._next(job, after)
                for event in events:
                    after = event.sequence
                    yield event
                if is_last or (not events and not new.wait(timeout)):
                    return

    async def subscribe_async(
        self, job: str, after: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """As `subscribe`, for an event loop."""
        new, wake = _async_event()
        with self._listening(wake, job=job):
            while True:
                new.clear()
                # The store is asked by a thread: it may wait for its file.
                events, is_last = await asyncio.to_thread(self._next, job, after)
                for event in events:
                    after = event.sequence
                    yield event
                if is_last or (not events and not await _wait(new, timeout)):
                    return

    async def subscribe_user_async(self, user: str, timeout: float | None = None) -> AsyncIterator[JobEvent]:
        """The events of all jobs of a user, from now on, until nothing comes for `timeout` seconds, for an event loop."""
        (new, wake), waiting = _async_event(), deque[JobEvent](maxlen=MAX_WAITING)
        with self._listening(wake, user=user, waiting=waiting):
            while True:
                new.clear()
                while waiting:
                    yield waiting.popleft()
                if not await _wait(new, timeout):
                    return

    def _newest(self, job: str, kind: str) -> JobEvent | None:
        with self._lock:
            log = self._logs.get(job)
            return next((event for event in reversed(log.passing) if event.kind == kind), None) if log else None

    def _next(self, job: str, after: int) -> tuple[list[JobEvent], bool]:
        """The events that are kept, and whether the job's last one is among them or before them."""
        with self._lock:
            log = self._logs.get(job)
            events, is_ended = (log.after(after), log.is_ended) if log else ([], False)
        if events or is_ended:
            return events, is_ended
        # A job ends in the store first, then here: one that has not ended there yet will wake its listeners.
        end = self._ended(job)
        if end is None:
            return [], False
        with self._lock:
            if log := self._logs.get(job):
                return log.after(after), log.is_ended
        return [end.model_copy(update={"sequence": after + 1})], True

    @contextmanager
    def _listening(
        self, wake: Waker, job: str | None = None, user: str | None = None, waiting: deque[JobEvent] | None = None
    ) -> Iterator[None]:
        key = object()
        with self._lock:
            self._wakers[key] = job, user, wake, deque() if waiting is None else waiting
        try:
            yield
        finally:
            with self._lock:
                del self._wakers[key]


def _async_event() -> tuple[asyncio.Event, Waker]:
    """An event of this loop, and what sets it from any thread."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(event.set)

    return event, wake


async def _wait(event: asyncio.Event, timeout: float | None) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return False
    return True
