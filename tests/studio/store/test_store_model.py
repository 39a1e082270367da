"""The store against a model of it in lists and dictionaries, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from job_requests import IMAGE, MASK, job_requests
from sqlalchemy import delete, update

from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest, JobRequest, TagsRequest
from seesr.studio.errors import ConflictError, NotFoundError
from seesr.studio.records import ENDED, Job, JobState, PictureRecord
from seesr.studio.store import Store
from seesr.studio.store.tables import QueueRow, Table

USERS = st.sampled_from(["ada", "bo", "cy"])
PRIORITIES = st.sampled_from([0, 0, 0, 1, -1])
REQUESTS = st.sampled_from(
    [
        GenerationRequest(options=GenerationOptions(prompt="a gull")),
        GenerationRequest(task="inpainting", options=GenerationOptions(), image=IMAGE, mask=MASK),
        TagsRequest(task="tags", image=MASK),
    ]
)
DEVICES = st.sampled_from(["cuda:0", "cuda:1"])


def picture_of(job: Job, index: int) -> PictureRecord:
    """The record of a picture that a job has finished."""
    return PictureRecord(
        id=f"{job.id}-{index}",
        job=job.id,
        user=job.user,
        index=index,
        created=datetime.now(UTC),
        width=64,
        height=48,
        media_type="image/png",
        size=1000 + index,
        digest="0" * 64,
        settings={"seed": index},
    )


def clear(store: Store) -> None:
    """Empties the store."""
    with store._write() as session:
        for table in reversed(Table.metadata.sorted_tables):
            if table.name != QueueRow.__tablename__:
                session.execute(delete(table))
        session.execute(update(QueueRow).values(paused=None, turn=0))


class StoreMachine(RuleBasedStateMachine):
    """Does things at random to the store and to the model."""

    url: str
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(self.url)
        clear(self.store)
        self.made: list[Job] = []
        self.queue: list[str] = []
        self.turns: dict[str, int] = {}
        self.pictures: list[PictureRecord] = []
        self.paused: str | None = None

    def teardown(self) -> None:
        self.store.close()

    def find(self, id: str) -> Job | None:
        return next((job for job in self.made if job.id == id), None)

    def change(self, id: str, **values: object) -> None:
        self.made = [job.model_copy(update=values) if job.id == id else job for job in self.made]

    def order(self) -> list[str]:
        """The queue, begun job by job."""
        turns, waiting, order = dict(self.turns), list(self.queue), []
        while waiting:
            jobs = {id: self.find(id) for id in waiting}
            first = min(waiting, key=lambda id: (-jobs[id].priority, turns.get(jobs[id].user, 0), waiting.index(id)))
            turns[jobs[first].user] = max(turns.values(), default=0) + 1
            waiting.remove(first)
            order.append(first)
        return order

    @rule(target=ids, jobs=st.lists(st.tuples(USERS, REQUESTS, PRIORITIES), min_size=1, max_size=6))
    def add(self, jobs: list[tuple[str, JobRequest, int]]) -> object:
        ids = []
        for user, request, priority in jobs:
            job = self.store.add_job(user, request, priority)
            assert (job.user, job.state, job.request, job.priority) == (user, "pending", request, priority)
            self.made.append(job)
            self.queue.append(job.id)
            ids.append(job.id)
        return multiple(*ids)

    @rule(device=DEVICES, count=st.integers(1, 4))
    def claim(self, device: str, count: int) -> None:
        for _ in range(count):
            job, order = self.store.claim_job(device), self.order()
            if self.paused is not None or not order:
                assert job is None
                return
            assert job is not None
            assert (job.id, job.state, job.device) == (order[0], "running", device)
            assert job.started is not None
            self.queue.remove(job.id)
            self.turns[job.user] = max(self.turns.values(), default=0) + 1
            self.change(job.id, state="running", device=device, started=job.started)

    @rule(id=ids, state=st.sampled_from(ENDED), error=st.none() | st.just("the model 'x' is not here."))
    def end(self, id: str, state: JobState, error: str | None) -> None:
        before = self.find(id)
        if before is None:
            with pytest.raises(NotFoundError):
                self.store.end_job(id, state)
            return
        after = self.store.end_job(id, state, error, ["a note"], {"seconds": {"denoise": 1.5}})
        if before.state in ENDED:
            assert (after.state, after.ended, after.error) == (before.state, before.ended, before.error)
            return
        assert (after.state, after.error, after.notes) == (state, error, ["a note"])
        assert after.result == {"seconds": {"denoise": 1.5}}
        if id in self.queue:
            self.queue.remove(id)
        self.change(id, state=state, ended=after.ended, error=error, notes=after.notes, result=after.result)

    @rule(id=ids)
    def cancel(self, id: str) -> None:
        assert self.store.cancel_pending(id) == (id in self.queue)
        if id in self.queue:
            self.queue.remove(id)
            self.change(id, state="cancelled", ended=self.store.job(id).ended)

    @rule(id=ids, before=st.none() | ids)
    def move(self, id: str, before: str | None) -> None:
        if id not in self.queue or (before is not None and before not in self.queue):
            with pytest.raises((NotFoundError, ConflictError)):
                self.store.move_job(id, before)
            return
        self.store.move_job(id, before)
        if id != before:
            self.queue.remove(id)
            self.queue.insert(len(self.queue) if before is None else self.queue.index(before), id)

    @rule(id=ids, request=REQUESTS)
    def edit(self, id: str, request: JobRequest) -> None:
        if id not in self.queue:
            with pytest.raises((NotFoundError, ConflictError)):
                self.store.edit_job(id, request)
            return
        assert self.store.edit_job(id, request).request == request
        self.change(id, request=request)

    @rule(id=ids, priority=PRIORITIES)
    def set_priority(self, id: str, priority: int) -> None:
        if id in self.queue:
            assert self.store.set_priority(id, priority).priority == priority
            self.change(id, priority=priority)

    @rule(device=st.none() | DEVICES)
    def interrupt(self, device: str | None) -> None:
        running = {job.id for job in self.made if job.state == "running" and device in (None, job.device)}
        assert set(self.store.interrupt_running(device)) == running
        for id in running:
            self.change(id, state="interrupted", ended=self.store.job(id).ended)

    @rule(id=ids)
    def add_picture(self, id: str) -> None:
        if job := self.find(id):
            index = sum(picture.job == id for picture in self.pictures)
            picture = picture_of(job, index)
            if picture.id in {other.id for other in self.pictures}:
                return
            self.store.add_picture(picture)
            self.pictures.append(picture)
            with pytest.raises(ConflictError):
                self.store.add_picture(picture.model_copy(update={"id": "another"}))

    @precondition(lambda self: self.pictures)
    @rule(data=st.data())
    def remove_picture(self, data: st.DataObject) -> None:
        last = data.draw(st.sampled_from(self.pictures))
        if any(other.job == last.job and other.index > last.index for other in self.pictures):
            return
        assert self.store.remove_picture(last.id) == last
        self.pictures.remove(last)

    @rule(id=ids, keep_pictures=st.booleans(), user=st.none() | USERS)
    def prune(self, id: str, keep_pictures: bool, user: str | None) -> None:
        last = self.find(id)
        if last is None or last.ended is None:
            return
        pruned = {
            job.id for job in self.made if job.ended is not None and job.ended <= last.ended and user in (None, job.user)
        }
        removed = self.store.prune_jobs(last.ended + timedelta(microseconds=1), keep_pictures, user)
        theirs = [picture for picture in self.pictures if picture.job in pruned]
        assert {picture.id for picture in removed} == (set() if keep_pictures else {picture.id for picture in theirs})
        self.made = [job for job in self.made if job.id not in pruned]
        kept = {id: picture.model_copy(update={"job": None}) for picture in theirs for id in [picture.id] if keep_pictures}
        self.pictures = [
            kept.get(picture.id, picture) for picture in self.pictures if picture.id in kept or picture not in theirs
        ]

    @rule(reason=st.none() | st.just("the disk is full"))
    def pause(self, reason: str | None) -> None:
        self.store.set_paused(reason)
        self.paused = reason

    @rule(user=USERS)
    def remove_user(self, user: str) -> None:
        self.store.add_user(user, None)
        if any(job.state == "running" and job.user == user for job in self.made):
            with pytest.raises(ConflictError):
                self.store.remove_user(user)
            with self.store._write() as session:
                session.execute(delete(Table.metadata.tables["users"]))
            return
        theirs = {picture.id for picture in self.pictures if picture.user == user}
        assert {picture.id for picture in self.store.remove_user(user)} == theirs
        self.queue = [id for id in self.queue if (job := self.find(id)) and job.user != user]
        self.made = [job for job in self.made if job.user != user]
        self.pictures = [picture for picture in self.pictures if picture.user != user]
        self.turns.pop(user, None)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.url)

    @invariant()
    def is_as_the_model(self) -> None:
        order = self.order()
        expected = [
            job.model_copy(
                update={
                    "pictures": sorted((p for p in self.pictures if p.job == job.id), key=lambda picture: picture.index),
                    "ahead": order.index(job.id) if job.id in order else None,
                }
            )
            for job in reversed(self.made)
        ]
        assert self.store.jobs(count=1000) == expected
        assert self.store.pictures() == self.pictures[::-1]
        status = self.store.queue_status()
        assert (status.paused, status.reason, status.pending) == (self.paused is not None, self.paused, len(order))
        assert sum(self.store.counts().values()) == len(self.made)
        assert self.store.used_inputs() == {digest for job in self.made for digest in job.request.pictures}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(request=job_requests)
def test_request_of_any_task_is_kept_as_it_is(database: str, request: JobRequest) -> None:
    with Store(database) as store:
        assert store.job(store.add_job("ada", request).id).request == request


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    jobs=st.lists(st.tuples(USERS, REQUESTS, PRIORITIES), min_size=2, max_size=8),
    moves=st.lists(st.tuples(st.integers(0, 7), st.none() | st.integers(0, 7)), max_size=4),
)
@example(jobs=[("ada", TagsRequest(task="tags", image=MASK), 0)] * 3, moves=[(2, 0)])
def test_jobs_are_begun_in_fair_turns_wherever_they_were_moved(
    database: str, jobs: list[tuple[str, JobRequest, int]], moves: list[tuple[int, int | None]]
) -> None:
    machine = type("Machine", (StoreMachine,), {"url": database})()
    machine.add(jobs)
    ids = list(machine.queue)
    for place, before in moves:
        machine.move(ids[place % len(ids)], None if before is None else ids[before % len(ids)])
    for _ in ids:
        machine.is_as_the_model()
        machine.claim("cuda:0", 1)
    assert machine.queue == []
    machine.teardown()


def test_store_does_what_the_model_does(database: str) -> None:
    machine = type("Machine", (StoreMachine,), {"url": database})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)),
    )
