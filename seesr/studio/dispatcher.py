"""Gives the jobs of the queue to the workers, and keeps what comes of them: a picture's file first, then its row."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seesr.errors import SeeSRError
from seesr.jobs import ENDS, JobEvent, Worker, content_hash
from seesr.studio.errors import FullDiskError, NotFoundError, StorageError
from seesr.studio.events import EventLog
from seesr.studio.files import FileStore
from seesr.studio.records import Job, JobState, PictureRecord

if TYPE_CHECKING:
    from seesr.studio.store import Store

logger = logging.getLogger("seesr.studio")

IDLE_SECONDS = 2.0
"""After which a thread without a job looks again: another program may have changed the queue."""
CLOSE_SECONDS = 30.0
"""How long a job that runs may take to end when the studio is closed."""
DISK_FULL = "the disk is full; the queue goes on by itself when there is room"
"""Why the queue is paused, where nobody paused it."""
Watcher = Callable[[Job, JobEvent], None]
"""Is told each event, with the job as it was begun, of the last event as it ended."""
CLOSED = "the studio was stopped while this job ran; retry it."


class Dispatcher:
    """One thread for each worker, which runs one job at a time.

    Args:
        workers: by device.
    """

    def __init__(self, store: Store, files: FileStore, events: EventLog, workers: Mapping[str, Worker]) -> None:
        self.store, self.files, self.events, self.workers = store, files, events, dict(workers)
        self._closing = threading.Event()
        self.watchers = list[Watcher]()
        self._changed, self._changes = threading.Condition(), 0
        self._running = dict[str, str]()
        """Jobs by device."""
        self._cancelled = set[str]()
        """Jobs that are to end, from when that was asked for until they have ended."""
        self._threads = [
            threading.Thread(target=self._work, args=item, name=f"dispatcher {item[0]}", daemon=True)
            for item in self.workers.items()
        ]

    def start(self) -> list[str]:
        """Begins to run jobs.

        Returns:
            The ids of those that ran when the studio ended the last time; they are `interrupted` now, and not repeated.
        """
        interrupted = self.store.interrupt_running()
        for thread in self._threads:
            thread.start()
        return interrupted

    def wake(self) -> None:
        """Tells the threads that the queue has changed."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    @property
    def running(self) -> dict[str, str]:
        """The jobs that run, by device."""
        with self._changed:
            return dict(self._running)

    def cancel(self, job: str) -> None:
        """Ends a job that was begun; one that has ended stays as it is."""
        with self._changed:
            self._cancelled.add(job)
        for worker in self.workers.values():
            worker.cancel(job)
        if self._has_ended(job):
            with self._changed:
                self._cancelled.discard(job)

    def skip(self, job: str) -> None:
        """Ends the picture of a job that is made at this moment."""
        for worker in self.workers.values():
            worker.skip(job)

    def is_cancelled(self, job: str) -> bool:
        """Whether a job is to end."""
        with self._changed:
            return job in self._cancelled

    def close(self) -> None:
        """Ends what runs, which is `interrupted` then, and the workers."""
        self._closing.set()
        self.wake()
        for job in self.running.values():
            for worker in self.workers.values():
                worker.cancel(job)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(CLOSE_SECONDS)
        for worker in self.workers.values():
            worker.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(CLOSE_SECONDS)

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()

    def _has_ended(self, job: str) -> bool:
        try:
            return self.store.job(job).ended is not None
        except NotFoundError:
            return True

    def _work(self, device: str, worker: Worker) -> None:
        while not self._closing.is_set():
            changes = self._changes
            try:
                job = self._claim(device)
                if job is None:
                    with self._changed:
                        self._changed.wait_for(lambda: self._changes != changes, IDLE_SECONDS)  # noqa: B023
                else:
                    self._run(device, worker, job)
            except Exception:
                # A thread that ended would leave its worker without jobs for ever.
                logger.exception("the dispatcher of %s failed; it goes on", device)
                self._closing.wait(IDLE_SECONDS)

    def _claim(self, device: str) -> Job | None:
        try:
            if self.files.free_bytes() == 0:
                if not self.store.queue_status().paused:
                    self.store.set_paused(DISK_FULL)
                return None
            if self.store.queue_status().reason == DISK_FULL:
                self.store.set_paused(None)
            return self.store.claim_job(device)
        except FullDiskError as error:
            logger.warning("%s", error)
            return None

    def _run(self, device: str, worker: Worker, job: Job) -> None:
        with self._changed:
            self._running[device] = job.id
        run = _Run(self, worker, job)
        try:
            run.run()
        finally:
            try:
                run.end()
            finally:
                with self._changed:
                    self._running.pop(device, None)
                    self._cancelled.discard(job.id)


class _Run:
    """One job on one worker."""

    def __init__(self, dispatcher: Dispatcher, worker: Worker, job: Job) -> None:
        self.dispatcher, self.worker, self.job = dispatcher, worker, job
        self.store, self.files, self.events = dispatcher.store, dispatcher.files, dispatcher.events
        self.last: JobEvent | None = None
        """What the worker said of the end."""
        self.error: SeeSRError | None = None
        """Why it has to end, as far as the worker does not know of it."""
        self.notes = list[str]()

    def run(self) -> None:
        job = self.job
        try:
            inputs = {name: self.files.input(name) for name in sorted(job.request.pictures)}
        except NotFoundError as error:
            self.error = error
            return
        if self._is_stopped():
            self.last = JobEvent(job=job.id, sequence=0, kind="cancelled")
            return
        self.worker.run(job.id, job.request, inputs, self.emit)

    def emit(self, event: JobEvent) -> None:
        # A cancel may have come before the worker knew of the job.
        if self._is_stopped() or self.error is not None:
            self.worker.cancel(self.job.id)
        if event.kind in ENDS:
            self.last = event
            return
        if event.kind == "note":
            self.notes.append(str(event.data["text"]))
        if event.kind == "picture":
            try:
                event = self._keep(event)
            except (FullDiskError, StorageError) as error:
                self.error = error
                self.worker.cancel(self.job.id)
                return
        self._tell(self.job, event)

    def end(self) -> None:
        """Keeps what became of the job, then tells it."""
        state, error = self._outcome()
        data = self.last.data if self.last else {}
        notes = list(dict.fromkeys([*self.notes, *data.get("notes", ())]))
        kept = _retried(
            lambda: self.store.end_job(self.job.id, state, error=error, notes=notes, result=data.get("result")),
            lambda: self.dispatcher._closing.wait(IDLE_SECONDS),
        )
        if kept is not None:
            self._tell(kept, end_event(kept))

    def _tell(self, job: Job, event: JobEvent) -> None:
        event = self.events.publish(job.user, event)
        for watcher in self.dispatcher.watchers:
            watcher(job, event)

    def _is_stopped(self) -> bool:
        return self.dispatcher.is_closing or self.dispatcher.is_cancelled(self.job.id)

    def _outcome(self) -> tuple[JobState, str | None]:
        if self.error is not None:
            return "failed", str(self.error)
        if self.last is None:
            return "interrupted", "the worker ended without a word; retry the job."
        if self.last.kind == "done":
            return "done", None
        if self.last.kind == "cancelled":
            by_user = self.dispatcher.is_cancelled(self.job.id)
            return ("interrupted", CLOSED) if self.dispatcher.is_closing and not by_user else ("cancelled", None)
        return self.last.data.get("state", "failed"), str(self.last.data["error"])

    def _keep(self, event: JobEvent) -> JobEvent:
        """Keeps a picture. Its event then holds its record in place of its content."""
        content, data = event.content or b"", event.data
        record = PictureRecord(
            id=uuid.uuid4().hex,
            job=self.job.id,
            user=self.job.user,
            index=data["index"],
            created=datetime.now(UTC),
            width=data["width"],
            height=data["height"],
            media_type=data["media_type"],
            size=len(content),
            digest=content_hash(content),
            settings=data["settings"],
            tags=list(data["record"].get("tags", {})),
        )
        self.files.put_output(record.id, record.created, record.media_type, content)
        try:
            self.store.add_picture(record)
        except BaseException:
            self.files.remove(record)
            raise
        shown = record.model_dump(mode="json", exclude={"user"}) | {"seed": data["seed"], "record": data["record"]}
        return event.model_copy(update={"data": shown, "content": None})


def end_event(job: Job) -> JobEvent:
    """The last event of a job that has ended."""
    kind = job.state if job.state in ("done", "cancelled") else "failed"
    data = {"state": job.state, "error": job.error, "notes": job.notes, "result": job.result}
    return JobEvent(job=job.id, sequence=0, kind=kind, data=data)


def _retried(end: Callable[[], Job], pause: Callable[[], bool]) -> Job | None:
    """What `end` returns, as soon as the disk has room for it; None if the job is gone, or the studio is closed before."""
    while True:
        try:
            return end()
        except NotFoundError:
            return None
        except FullDiskError as error:
            logger.warning("%s", error)
            if pause():
                return None
