"""The studio: the one thing that every interface calls. It knows who may do what; interfaces only translate."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout
from PIL import Image, UnidentifiedImageError

from seesr.addresses import AddressRules
from seesr.errors import InputError, OptionError
from seesr.images.encoded import (
    DECODE_ERRORS,
    EncodedImage,
    check_dimensions,
    check_file_size,
    damaged,
    load_image,
    open_image,
)
from seesr.images.metadata import read_infotext, read_settings
from seesr.images.sizes import Size
from seesr.jobs import JobEvent, JobRequest, Worker, content_hash
from seesr.options import Limits
from seesr.studio.access import owner_of, require_admin, visible
from seesr.studio.archive import archive_user
from seesr.studio.dispatcher import Dispatcher, end_event
from seesr.studio.errors import ConflictError, NotFoundError, StudioError
from seesr.studio.events import EventLog
from seesr.studio.files import FileStore
from seesr.studio.gallery import Gallery
from seesr.studio.picture_facts import PictureFacts, picture_facts
from seesr.studio.records import ENDED, LOCAL, Job, JobState, PictureRecord, Preferences, QueueStatus, User, Webhook
from seesr.studio.webhooks import Webhooks

if TYPE_CHECKING:
    from seesr.studio.settings import StudioSettings
    from seesr.studio.store import Store

logger = logging.getLogger("seesr.studio")

LOCK = ".lock"
"""In the data folder: held by the studio that runs on it."""
PREFERENCES, FIELDS = "preferences", "page."
"""Names of users' settings: of the preferences, and how those begin that hold the values of the page's fields."""
UPLOADS_LAST = timedelta(days=1)
"""How long an upload stays that no job names."""
TIDY_SECONDS = 3600.0
"""After which what is old is removed again."""
CANCEL_SECONDS = 60.0
"""How long a job may take to end that was cancelled."""


class Studio(Gallery):
    """Jobs, pictures and the queue, for users. Thread-safe.

    Every method that takes a user raises NotFoundError for what is another user's, and ForbiddenError for what only an admin
    may do. Admins may do everything.

    Args:
        workers: by device.
        limits: of the pictures that are sent; None reads the SEESR_ environment variables.
    """

    def __init__(
        self,
        store: Store,
        files: FileStore,
        workers: Mapping[str, Worker],
        settings: StudioSettings,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(store, files)
        self.settings = settings
        self.limits = limits or Limits.from_environment()
        self._events = EventLog(self._end_of)
        self.dispatcher = Dispatcher(store, files, self._events, workers)
        self.webhooks = Webhooks(store, AddressRules(hosts=settings.webhook_allow))
        self.dispatcher.watchers.append(self.webhooks.observe)
        self._lock: FileLock | None = None
        self._closing = threading.Event()
        self._tidier = threading.Thread(target=self._tidy_again, name="tidier", daemon=True)

    @classmethod
    def open(cls, data: Path, settings: StudioSettings, workers: Mapping[str, Worker], start: bool = True) -> Self:
        """The studio of a data folder, whose queue begins to run, unless that is left to `start`.

        Raises:
            ConflictError: another studio runs on it.
            StudioError: the store cannot be opened.
        """
        from seesr.studio.store import Store

        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(data / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConflictError(f"another studio runs on {data}; end it, or choose another folder with --data.") from None
        try:
            studio = cls(Store(settings.store_url(data)), FileStore(data, outputs=settings.outputs), workers, settings)
        except BaseException:
            lock.release()
            raise
        studio._lock = lock
        try:
            if start:
                studio.start()
        except BaseException:
            studio.close()
            raise
        return studio

    def start(self) -> None:
        """Marks what the last end interrupted, removes what it left of files, and begins to run the queue."""
        # Nobody writes yet: what has no row now never gets one.
        self.files.collect_garbage(self.store.used_inputs(), self.store.picture_ids(), min_age=0)
        self.dispatcher.start()
        self.webhooks.start()
        self.tidy()
        self._tidier.start()

    def close(self) -> None:
        """Ends what runs within a step, the workers and the store."""
        self._closing.set()
        self.dispatcher.close()
        if self._tidier.is_alive():
            self._tidier.join()
        self.webhooks.close()
        self.store.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Jobs.

    def submit(
        self,
        user: User,
        request: JobRequest,
        inputs: Mapping[str, bytes] | None = None,
        priority: int = 0,
        webhook: Webhook | None = None,
    ) -> Job:
        """Puts a job into the queue.

        Args:
            inputs: pictures by content hash; those that were uploaded before need not be there.
            priority: more than 0 only of an admin.

        Raises:
            AddressError: the webhook's address is not allowed.
            InputError: a picture is missing, or cannot be used.
            LimitError: a limit of the operator's is exceeded.
            FullDiskError: there is no room.
        """
        self._check_priority(user, priority)
        if webhook is not None:
            self.webhooks.check(webhook)
        for name, content in (inputs or {}).items():
            if content_hash(content) != name:
                raise InputError(f"the picture {name} has another content hash; name each by its SHA-256.")
            self.upload(user, content)
        return self._add(user.name, request, priority, webhook=webhook)

    def upload(self, user: User, content: bytes) -> str:
        """Keeps a picture that jobs of this user may name, for a day beyond the last job that does.

        Returns:
            Its content hash.

        Raises:
            InputError: it is no picture, or exceeds a limit, by its header: it is not decoded here.
            FullDiskError: there is no room.
        """
        self.check_picture(content)
        self._check_quota(user.name, len(content))
        name = self.files.put_input(content)
        self.store.add_input(user.name, name, len(content))
        return name

    def check_picture(self, content: bytes) -> Size:
        """The size of a picture that was sent, by its header.

        Raises:
            InputError: it is no picture, or exceeds a limit.
        """
        name = "the file that was sent"
        check_file_size(len(content), self.limits, name)
        try:
            size = open_image(content).size
        except UnidentifiedImageError:
            raise InputError(f"{name} is not a picture in a known format.") from None
        except DECODE_ERRORS as error:
            raise damaged(name, error) from error
        check_dimensions(size, self.limits, name)
        return size

    def uploaded(self, user: User, name: str) -> tuple[bytes, str]:
        """A picture that the user has sent, by its content hash, and its media type.

        Raises:
            NotFoundError: the user has sent none of this hash, or too long ago.
        """
        if not self.store.has_input(user.name, name):
            raise NotFoundError("there is no such upload.")
        content = self.files.input(name)
        return content, Image.MIME.get(open_image(content).format or "", "application/octet-stream")

    def job(self, user: User, id: str) -> Job:
        """A job."""
        return visible(user, "job", id, self.store.job)

    def jobs(
        self,
        user: User,
        states: Collection[JobState] | None = None,
        before: str | None = None,
        count: int = 50,
        of: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            before: the last one of the page before.
            of: whose; None is the user, and `*` everybody.
        """
        owner = owner_of(user, of)
        if before is not None:
            self._owner(user, before)
        return self.store.jobs(owner, states, before, count)

    def cancel(self, user: User, id: str) -> Job:
        """Ends a job, one that runs within a call of a network; one that has ended stays as it is."""
        job = self.job(user, id)
        if job.state == "pending" and self.store.cancel_pending(id):
            job = self.store.job(id)
            self._events.publish(job.user, end_event(job))
            self.webhooks.wake()
        elif job.state not in ENDED:
            self.dispatcher.cancel(id)
        return job

    def skip(self, user: User, id: str) -> None:
        """Ends the picture of a job that is made at this moment; its next one is begun.

        Raises:
            ConflictError: the job does not run.
        """
        job = self.job(user, id)
        if job.state != "running":
            raise ConflictError(f"the job is {job.state}; only one that runs has a picture to skip.")
        self.dispatcher.skip(id)

    def interrupt(self, user: User) -> list[str]:
        """Ends the user's own jobs that run.

        Returns:
            Their ids.
        """
        running = [job.id for job in self.store.jobs(user.name, ["running"])]
        for id in running:
            self.dispatcher.cancel(id)
        return running

    def retry(self, user: User, id: str, request: JobRequest | None = None) -> Job:
        """Puts a job that has ended into the queue once more, as it was or with another request.

        Raises:
            ConflictError: it has not ended.
            InputError, LimitError: as `submit`.
        """
        job = self.job(user, id)
        if job.state not in ENDED:
            raise ConflictError(f"the job is {job.state}; only one that has ended can be retried.")
        return self._add(job.user, request or job.request, 0, retry_of=id, webhook=job.webhook)

    def edit(self, user: User, id: str, request: JobRequest) -> Job:
        """Changes the request of a job that waits; it keeps its place.

        Raises:
            ConflictError: it has begun.
            InputError, LimitError: as `submit`.
        """
        owner = self._owner(user, id)
        return self.store.edit_job(id, request, self.settings.limits, self._check(owner, request))

    def move(self, user: User, id: str, before: str | None) -> Job:
        """Puts a job that waits before another one; None is the end of the queue.

        Raises:
            ConflictError: one of them does not wait.
        """
        self._owner(user, id)
        if before is not None:
            self._owner(user, before)
        self.store.move_job(id, before)
        return self.store.job(id)

    def set_priority(self, user: User, id: str, priority: int) -> Job:
        """Sets the priority of a job that waits.

        Raises:
            ConflictError: it has begun.
        """
        self._owner(user, id)
        self._check_priority(user, priority)
        return self.store.set_priority(id, priority)

    def wait(self, user: User, id: str, timeout: float | None = None) -> Job:
        """The job as soon as it has ended, or as it is when nothing was said of it for `timeout` seconds."""
        job = self.job(user, id)
        if job.state not in ENDED:
            for _ in self._events.subscribe(id, timeout=timeout):
                pass
            job = self.job(user, id)
        return job

    async def finished(self, user: User, id: str) -> Job:
        """The job as soon as it has ended, for an event loop."""
        events = await asyncio.to_thread(self.events_async, user, id)
        async with aclosing(events):
            async for _ in events:
                pass
        return await asyncio.to_thread(self.job, user, id)

    def contents(self, user: User, job: Job) -> list[tuple[PictureRecord, bytes]]:
        """The finished pictures of a job with their files, in their order; without those that somebody has removed."""
        contents = list[tuple[PictureRecord, bytes]]()
        for picture in sorted(job.pictures, key=lambda picture: picture.index):
            try:
                contents.append((picture, self.picture_content(user, picture.id)[1].read_bytes()))
            except (NotFoundError, FileNotFoundError):
                continue
        return contents

    def events(self, user: User, id: str, after: int = 0, timeout: float | None = None) -> Iterator[JobEvent]:
        """The events of a job; see `EventLog.subscribe`."""
        self._owner(user, id)
        return self._events.subscribe(id, after, timeout)

    def events_async(
        self, user: User, id: str, after: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """As `events`, for an event loop; it asks the store before it returns."""
        self._owner(user, id)
        return self._events.subscribe_async(id, after, timeout)

    def events_of_user(self, user: User, timeout: float | None = None) -> AsyncIterator[JobEvent]:
        """The events of all jobs of the user from now on, for an event loop."""
        return self._events.subscribe_user_async(user.name, timeout)

    def progress(self, user: User, id: str) -> JobEvent | None:
        """The newest progress of a job."""
        self._owner(user, id)
        return self._events.progress(id)

    def preview(self, user: User, id: str) -> JobEvent | None:
        """The newest preview of a job that runs, with its content."""
        self._owner(user, id)
        return self._events.preview(id)

    # The queue.

    def queue(self) -> QueueStatus:
        """The queue, without anything of anybody's jobs."""
        return self.store.queue_status()

    def pause(self, user: User, reason: str) -> QueueStatus:
        """Begins no job until `resume`; what runs goes on."""
        require_admin(user, "pause the queue")
        self.store.set_paused(reason or "the operator paused it")
        return self.store.queue_status()

    def resume(self, user: User) -> QueueStatus:
        """Begins jobs again."""
        require_admin(user, "resume the queue")
        self.store.set_paused(None)
        self.dispatcher.wake()
        return self.store.queue_status()

    def prune(self, user: User, older_than: datetime, keep_pictures: bool = True) -> int:
        """Removes the user's own jobs that ended before a moment, and with them their pictures unless these are kept.

        Returns:
            The number of pictures that were removed.
        """
        removed = self.store.prune_jobs(older_than, keep_pictures, user.name)
        self.remove_files(removed)
        return len(removed)

    def tidy(self) -> None:
        """Removes what is older than the operator's retention, old trash, uploads that no job names, files without rows."""
        limits, moment = self.settings.limits, datetime.now(UTC)
        days = limits.retention_days
        if days is not None:
            self.remove_files(self.store.prune_jobs(moment - timedelta(days=days), keep_pictures=False))
            self.remove_files(self.store.prune_pictures(moment - timedelta(days=days)))
        if limits.trash_days is not None:
            self.remove_files(self.store.empty_trash(older_than=moment - timedelta(days=limits.trash_days)))
        self.store.expire_inputs(moment - UPLOADS_LAST)
        # In this order: what is added meanwhile is young, and stays.
        self.files.collect_garbage(self.store.used_inputs(), self.store.picture_ids())

    def devices(self, user: User) -> dict[str, dict[str, Any]]:
        """Of each device whether a job runs there, and the names of the checkpoints that are loaded."""
        running = self.dispatcher.running
        return {
            device: {"busy": device in running, "loaded": worker.loaded()}
            for device, worker in self.dispatcher.workers.items()
        }

    def read_settings(self, content: bytes) -> dict[str, Any]:
        """What a picture says of how it was made: `settings` of SeeSR, A1111's `infotext`; None where it says nothing.

        Raises:
            InputError: it is no picture, is damaged, or exceeds a limit.
        """
        check_file_size(len(content), self.limits, "the picture")
        image = load_image(EncodedImage(content, "the picture"), self.limits)
        return {"settings": read_settings(image), "infotext": read_infotext(image)}

    def facts_of_upload(self, user: User, name: str) -> PictureFacts:
        """What the file of a picture says that the user has sent.

        Raises:
            InputError: it is damaged.
            NotFoundError: as `uploaded`.
        """
        return picture_facts(self.uploaded(user, name)[0], self.limits)

    # Users.

    def setting(self, user: User, name: str) -> Any:
        """A JSON value that is remembered for a user; None where there is none."""
        return self.store.setting(user.name, name)

    def set_setting(self, user: User, name: str, value: Any) -> None:
        """Remembers a JSON value for a user; None forgets it."""
        self.store.set_setting(user.name, name, value)

    def preferences(self, user: User) -> Preferences:
        """What the user has chosen for the page."""
        return Preferences.model_validate(self.setting(user, PREFERENCES) or {})

    def set_preferences(self, user: User, changes: Preferences) -> Preferences:
        """Changes those fields that were given to `changes`."""
        changed = {name: getattr(changes, name) for name in changes.model_fields_set}
        merged = self.preferences(user).model_copy(update=changed)
        self.set_setting(user, PREFERENCES, merged.model_dump(mode="json"))
        return merged

    def forget_fields(self, user: User) -> None:
        """Forgets all values that the page remembers of its fields."""
        self.store.forget_settings(user.name, FIELDS)

    def delete_user(self, user: User, name: str) -> None:
        """Removes a user, by an admin or the user, with all jobs, pictures and uploads.

        Raises:
            ConflictError: a job of this user does not end.
        """
        self._check_is_own(user, name, "remove another user")
        for job in self.store.all_jobs(name, ["pending", "running"]):
            self.cancel(user, job.id)
        for job in self.store.all_jobs(name, ["running"]):
            self.wait(user, job.id, CANCEL_SECONDS)
        self.remove_files(self.store.remove_user(name))

    def export_user(self, user: User, name: str) -> Iterator[bytes]:
        """All that is kept of a user, by an admin or the user: a ZIP file in parts, with `jobs.json` and the pictures."""
        self._check_is_own(user, name, "export what is another user's")
        return archive_user(self.files, self.store, name)

    # What several of them need.

    def _owner(self, user: User, id: str) -> str:
        """Whose a job is that the user may see."""
        return visible(user, "job", id, self.store.job_owner).user

    def _tidy_again(self) -> None:
        while not self._closing.wait(TIDY_SECONDS):
            try:
                self.tidy()
            except StudioError as error:  # a full disk, for instance: later there may be room
                logger.warning("%s", error)

    def _add(
        self, owner: str, request: JobRequest, priority: int, retry_of: str | None = None, webhook: Webhook | None = None
    ) -> Job:
        limits = self.settings.limits
        self._check_quota(owner)
        self.files.check_room()
        job = self.store.add_job(owner, request, priority, retry_of, limits, self._check(owner, request), webhook)
        self.dispatcher.wake()
        return job

    def _check_quota(self, owner: str, more: int = 0) -> None:
        limits = self.settings.limits
        if limits.quota_bytes is not None:  # else the sum over all pictures is not needed
            limits.check_quota(self.store.used_bytes(owner), more)

    def _check(self, owner: str, request: JobRequest) -> float:
        """Checks the operator's limits on a job, and its pictures; returns its megapixels."""
        sizes = dict[str, Size]()
        for name in sorted(request.pictures):
            if not self.store.has_input(owner, name):
                raise InputError(f"the picture {name} was not sent, or too long ago; upload it before the job.")
            sizes[name] = self.check_picture(self.files.input(name))
        return self.settings.limits.check(request, sizes)

    def _end_of(self, job: str) -> JobEvent | None:
        try:
            kept = self.store.job(job)
        except NotFoundError:  # removed meanwhile
            return JobEvent(job=job, sequence=0, kind="cancelled")
        return end_event(kept) if kept.state in ENDED else None

    def _check_priority(self, user: User, priority: int) -> None:
        if priority > 0:
            require_admin(user, "raise the priority of a job")

    def _check_is_own(self, user: User, name: str, what: str) -> None:
        if user.name != name:
            require_admin(user, what)
        if name == LOCAL:
            raise OptionError(f"{LOCAL} is everybody where there are no users, and cannot be exported or removed.")
