"""Jobs in the store, and their queue."""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from seesr.jobs import JobRequest, parse_request
from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.limits import QueueLimits
from seesr.studio.records import ENDED, LOCAL, Job, JobState, PictureRecord, QueueStatus, Webhook
from seesr.studio.store.database import PAGE, Database, all_pages, lock_queue, row_of
from seesr.studio.store.pictures import delete_pictures, picture_record
from seesr.studio.store.tables import (
    InputRow,
    JobInputRow,
    JobRow,
    PictureRow,
    QueueRow,
    SubmissionRow,
    TurnRow,
    UserRow,
    now,
)

HOUR = timedelta(hours=1)


class JobOwner(NamedTuple):
    """Whose a job is."""

    user: str


class Waiting(NamedTuple):
    """A pending job, as far as its turn depends on it; smaller ones of a user are begun first."""

    priority: int
    """Negated: higher ones come first."""
    position: int
    number: int
    id: str
    user: str


def turns(pending: Iterable[Waiting], last_turns: Mapping[str, int]) -> list[str]:
    """Ids of the pending jobs in the order in which they are begun, if nothing is added.

    The higher priority comes first; then the user whose last turn is longest ago; then the queue's order.
    """
    last = dict(last_turns)
    counter = itertools.count(max(last.values(), default=0) + 1)
    order: list[str] = []
    for _, jobs in itertools.groupby(sorted(pending), key=lambda job: job.priority):
        queues: dict[str, list[Waiting]] = defaultdict(list)
        for job in jobs:
            queues[job.user].append(job)
        heap = [(last.get(user, 0), queue[0]) for user, queue in queues.items()]
        heapq.heapify(heap)
        places = dict.fromkeys(queues, 0)
        while heap:
            _, job = heapq.heappop(heap)
            order.append(job.id)
            last[job.user] = next(counter)
            places[job.user] += 1
            if places[job.user] < len(queues[job.user]):
                heapq.heappush(heap, (last[job.user], queues[job.user][places[job.user]]))
    return order


class JobStore(Database):
    """Jobs, each a full snapshot of its request. A job that has ended stays as it is."""

    def add_job(
        self,
        user: str,
        request: JobRequest,
        priority: int = 0,
        retry_of: str | None = None,
        limits: QueueLimits | None = None,
        megapixels: float = 0.0,
        webhook: Webhook | None = None,
    ) -> Job:
        """Puts a job at the end of the queue.

        Args:
            megapixels: of its pictures in all, which count for an hour towards the user's share.

        Raises:
            LimitError: the queue, or the user's share of it, is full.
            NotFoundError: the user has been removed since the request began.
        """
        moment = now()
        with self._write() as session:
            lock_queue(session)
            _check_user(session, user)
            session.execute(delete(SubmissionRow).where(SubmissionRow.created <= moment - HOUR))
            if limits:
                _check_queue(session, limits, user)
                _check_hour(session, limits, user, megapixels, new=True)
            row = JobRow(
                id=secrets.token_hex(16),
                user=user,
                state="pending",
                priority=priority,
                position=_last_position(session) + 1,
                created=moment,
                notes=[],
                result={},
                retry_of=retry_of,
                webhook=webhook and webhook.model_dump(mode="json"),
                webhook_due=moment if webhook and "completed" in webhook.events else None,
                **_request_columns(request),
            )
            session.add(row)
            session.flush()
            session.add_all(JobInputRow(job=row.id, digest=digest) for digest in sorted(request.pictures))
            session.add(SubmissionRow(job=row.id, user=user, created=moment, megapixels=megapixels))
            return _records(session, [row])[0]

    def job(self, id: str) -> Job:
        """A job with its pictures.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._read() as session:
            return _records(session, [row_of(session, JobRow, id, "job")])[0]

    def job_owner(self, id: str) -> JobOwner:
        """Whose a job is, without its pictures and its place in the queue.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._read() as session:
            return JobOwner(row_of(session, JobRow, id, "job").user)

    def jobs(
        self,
        user: str | None = None,
        states: Collection[JobState] | None = None,
        before: str | None = None,
        count: int = 50,
    ) -> list[Job]:
        """Jobs with their pictures, the newest first; of all users where `user` is None.

        Args:
            before: id of the last job of the page before.

        Raises:
            NotFoundError: there is no job `before`.
        """
        with self._read() as session:
            query = select(JobRow).order_by(JobRow.number.desc()).limit(count)
            if user is not None:
                query = query.where(JobRow.user == user)
            if states is not None:
                query = query.where(JobRow.state.in_(states))
            if before is not None:
                query = query.where(JobRow.number < row_of(session, JobRow, before, "job").number)
            return _records(session, session.scalars(query).all())

    def all_jobs(self, user: str | None = None, states: Collection[JobState] | None = None) -> Iterator[Job]:
        """All jobs that `jobs` lists, which are read as they are asked for."""
        return all_pages(lambda before: self.jobs(user, states, before, PAGE))

    def claim_job(self, device: str) -> Job | None:
        """The job whose turn it is, which runs on `device` from now on; None where none waits or the queue is paused."""
        with self._write() as session:
            queue = lock_queue(session)
            if queue.paused is not None:
                return None
            row = session.scalars(
                select(JobRow)
                .outerjoin(TurnRow, TurnRow.user == JobRow.user)
                .where(JobRow.state == "pending")
                .order_by(JobRow.priority.desc(), func.coalesce(TurnRow.turn, 0), JobRow.position, JobRow.number)
                .limit(1)
            ).first()
            if row is None:
                return None
            row.state, row.device, row.started = "running", device, now()
            queue.turn += 1
            session.merge(TurnRow(user=row.user, turn=queue.turn))
            session.flush()
            return _records(session, [row])[0]

    def end_job(
        self,
        id: str,
        state: JobState,
        error: str | None = None,
        notes: Sequence[str] = (),
        result: Mapping[str, Any] | None = None,
    ) -> Job:
        """Ends a job; of one that has ended, nothing is changed. Returns what is kept.

        Raises:
            NotFoundError: there is no such job.
        """
        if state not in ENDED:
            raise ValueError(f"a job does not end as {state}")
        with self._write() as session:
            lock_queue(session)
            session.execute(
                update(JobRow)
                .where(JobRow.id == id, JobRow.state.not_in(ENDED))
                .values(state=state, ended=now(), error=error, notes=list(notes), result=dict(result or {}))
            )
            return _records(session, [row_of(session, JobRow, id, "job")])[0]

    def cancel_pending(self, id: str) -> bool:
        """Cancels a job that is pending; False of another, which is left as it is."""
        with self._write() as session:
            lock_queue(session)
            return bool(
                session.scalars(
                    update(JobRow)
                    .where(JobRow.id == id, JobRow.state == "pending")
                    .values(state="cancelled", ended=now())
                    .returning(JobRow.id)
                ).all()
            )

    def move_job(self, id: str, before: str | None) -> None:
        """Puts a pending job before another pending one, or at the queue's end.

        Priorities and turns between users come first: what moves is its place among the user's jobs of its priority.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: one of them is not pending.
        """
        with self._write() as session:
            lock_queue(session)
            row = _pending_row(session, id)
            if before is None:
                row.position = _last_position(session) + 1
                return
            place = _pending_row(session, before)
            if place is not row:
                later = (JobRow.position > place.position) | (
                    (JobRow.position == place.position) & (JobRow.number >= place.number)
                )
                position = place.position
                session.execute(
                    update(JobRow).where(JobRow.state == "pending", later).values(position=JobRow.position + 1),
                    execution_options={"synchronize_session": False},
                )
                session.execute(update(JobRow).where(JobRow.id == id).values(position=position))

    def edit_job(self, id: str, request: JobRequest, limits: QueueLimits | None = None, megapixels: float = 0.0) -> Job:
        """Replaces the request of a pending job, which keeps its place.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it is not pending.
            LimitError: it exceeds the user's share.
        """
        with self._write() as session:
            lock_queue(session)
            row = _pending_row(session, id)
            session.execute(update(SubmissionRow).where(SubmissionRow.job == id).values(megapixels=0.0))
            if limits:
                _check_hour(session, limits, row.user, megapixels, new=False)
            session.execute(update(SubmissionRow).where(SubmissionRow.job == id).values(megapixels=megapixels))
            for name, value in _request_columns(request).items():
                setattr(row, name, value)
            session.execute(delete(JobInputRow).where(JobInputRow.job == id))
            session.add_all(JobInputRow(job=id, digest=digest) for digest in sorted(request.pictures))
            session.flush()
            return _records(session, [row])[0]

    def set_priority(self, id: str, priority: int) -> Job:
        """Changes the priority of a pending job.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it is not pending.
        """
        with self._write() as session:
            lock_queue(session)
            row = _pending_row(session, id)
            row.priority = priority
            session.flush()
            return _records(session, [row])[0]

    def interrupt_running(self, device: str | None = None) -> list[str]:
        """Ends the jobs that run, of a device or of all, whose worker has died. Returns their ids."""
        with self._write() as session:
            query = update(JobRow).where(JobRow.state == "running")
            if device is not None:
                query = query.where(JobRow.device == device)
            return list(session.scalars(query.values(state="interrupted", ended=now()).returning(JobRow.id)))

    def prune_jobs(self, older_than: datetime, keep_pictures: bool, user: str | None = None) -> list[PictureRecord]:
        """Removes the jobs, of a user or of all, that ended before a moment.

        Returns:
            the pictures that were removed with them, whose files remain to be removed.
        """
        ended = select(JobRow.id).where(JobRow.state.in_(ENDED), JobRow.ended < older_than)
        if user is not None:
            ended = ended.where(JobRow.user == user)
        with self._write() as session:
            removed = [] if keep_pictures else delete_pictures(session, PictureRow.job.in_(ended))
            session.execute(delete(JobRow).where(JobRow.id.in_(ended)))
            return removed

    def queue_status(self) -> QueueStatus:
        """Whether the queue is paused, and how many jobs are in it."""
        with self._read() as session:
            reason = session.scalars(select(QueueRow.paused)).one()
            query = select(JobRow.state, func.count()).where(JobRow.state.in_(("pending", "running"))).group_by(JobRow.state)
            counts = dict(session.execute(query).all())
            return QueueStatus(
                paused=reason is not None,
                reason=reason,
                pending=counts.get("pending", 0),
                running=counts.get("running", 0),
            )

    def set_paused(self, reason: str | None) -> None:
        """Pauses the queue, so that no job is begun; None lets it run again."""
        with self._write() as session:
            lock_queue(session).paused = reason

    def counts(self) -> dict[tuple[JobState, str], int]:
        """How many jobs there are of each state and task."""
        with self._read() as session:
            query = select(JobRow.state, JobRow.task, func.count()).group_by(JobRow.state, JobRow.task)
            return {(state, task): count for state, task, count in session.execute(query)}

    def used_inputs(self) -> set[str]:
        """Content hashes of the pictures that a job takes or a user has uploaded."""
        with self._read() as session:
            return {*session.scalars(select(JobInputRow.digest).distinct()), *session.scalars(select(InputRow.digest))}


def _records(session: Session, rows: Sequence[JobRow]) -> list[Job]:
    """The jobs with their pictures outside the trash; at most three queries, however many they are."""
    pictures: dict[str, list[PictureRecord]] = defaultdict(list)
    for row in session.scalars(
        select(PictureRow)
        .where(PictureRow.job.in_([row.id for row in rows]), PictureRow.trashed.is_(None))
        .order_by(PictureRow.index)
    ):
        if row.job is not None:
            pictures[row.job].append(picture_record(row))
    ahead: dict[str, int] = {}
    if any(row.state == "pending" for row in rows):
        columns = (JobRow.priority, JobRow.position, JobRow.number, JobRow.id, JobRow.user)
        pending = session.execute(select(*columns).where(JobRow.state == "pending"))
        last_turns = dict(session.execute(select(TurnRow.user, TurnRow.turn)).all())
        order = turns(
            (Waiting(-priority, place, number, id, user) for priority, place, number, id, user in pending), last_turns
        )
        ahead = {id: place for place, id in enumerate(order)}
    return [
        Job(
            id=row.id,
            user=row.user,
            state=row.state,
            request=parse_request(row.request),
            priority=row.priority,
            created=row.created,
            started=row.started,
            ended=row.ended,
            device=row.device,
            error=row.error,
            notes=row.notes,
            result=row.result,
            retry_of=row.retry_of,
            webhook=None if row.webhook is None else Webhook.model_validate(row.webhook),
            pictures=pictures[row.id],
            ahead=ahead.get(row.id),
        )
        for row in rows
    ]


def _request_columns(request: JobRequest) -> dict[str, Any]:
    return {"task": request.task, "request": request.model_dump(mode="json")}


def _pending_row(session: Session, id: str) -> JobRow:
    row = row_of(session, JobRow, id, "job")
    if row.state != "pending":
        raise ConflictError(f"the job {id!r} is {row.state}; only a pending one can be changed.")
    return row


def _last_position(session: Session) -> int:
    return session.scalars(select(func.max(JobRow.position)).where(JobRow.state == "pending")).one() or 0


def _check_user(session: Session, user: str) -> None:
    """Where there are users, nobody else has jobs: a later user of the same name would find them."""
    is_gone = exists().select_from(UserRow) & ~exists().where(UserRow.name == user)
    if user != LOCAL and session.scalar(select(is_gone)):
        raise NotFoundError(f"there is no user {user!r} any more; log in as another one.")


def _check_queue(session: Session, limits: QueueLimits, user: str) -> None:
    query = select(func.count()).select_from(JobRow).where(JobRow.state == "pending")
    limits.check_queue(session.scalars(query).one(), session.scalars(query.where(JobRow.user == user)).one())


def _check_hour(session: Session, limits: QueueLimits, user: str, megapixels: float, new: bool) -> None:
    since = now() - HOUR
    query = select(func.count(), func.coalesce(func.sum(SubmissionRow.megapixels), 0.0)).where(
        SubmissionRow.user == user, SubmissionRow.created > since
    )
    jobs, used = session.execute(query).one()
    limits.check_hour(jobs if new else 0, used, megapixels)
