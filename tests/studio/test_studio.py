"""The studio as its interfaces call it: who may do what, and what becomes of jobs, pictures and files."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from job_requests import generation
from stand_in_worker import Gate, StandInWorker, picture

from seesr.errors import InputError
from seesr.jobs import TagsRequest, UpscaleRequest, content_hash
from seesr.studio.dispatcher import DISK_FULL
from seesr.studio.errors import ConflictError, ForbiddenError, LimitError, NotFoundError
from seesr.studio.limits import OperatorLimits
from seesr.studio.records import Job, User
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio

Open = Callable[..., Studio]
ANN, BOB, ADMIN = User(name="ann"), User(name="bob"), User(name="root", role="admin")


@pytest.fixture
def open_studio(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Opens the studio of `tmp_path`; what is open in the end is closed."""
    studios = list[Studio]()

    def build(*workers: StandInWorker, **limits: float) -> Studio:
        settings = StudioSettings(limits=OperatorLimits(**limits))
        named = {f"cpu:{number}": worker for number, worker in enumerate(workers or [StandInWorker()])}
        studios.append(Studio.open(tmp_path / "data", settings, named))
        return studios[-1]

    yield build
    for studio in studios:
        studio.close()


def test_a_job_becomes_pictures_whose_files_are_what_their_rows_say(open_studio: Open) -> None:
    studio = open_studio()
    job = studio.wait(ANN, studio.submit(ANN, generation(batch_count=3)).id, 30)
    assert (job.state, job.notes, [one.index for one in job.pictures]) == ("done", ["a grey picture"], [0, 1, 2])
    assert job.result["plan"] == "whole"
    for one in job.pictures:
        _, path = studio.picture_content(ANN, one.id)
        assert (content_hash(path.read_bytes()), path.stat().st_size) == (one.digest, one.size)
    events = list(studio.events(ANN, job.id))
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    assert [event.data["id"] for event in events if event.kind == "picture"] == [one.id for one in job.pictures]
    assert all(event.content is None for event in events)


def test_another_users_things_are_not_there_and_an_admin_sees_all(open_studio: Open) -> None:
    studio = open_studio()
    sent = studio.upload(ANN, picture(64))
    job = studio.wait(ANN, studio.submit(ANN, UpscaleRequest(task="upscale", image=sent)).id, 30)
    shown = job.pictures[0].id
    attempts: list[Callable[[], object]] = [
        lambda: studio.job(BOB, job.id),
        lambda: studio.cancel(BOB, job.id),
        lambda: studio.skip(BOB, job.id),
        lambda: studio.retry(BOB, job.id),
        lambda: studio.edit(BOB, job.id, generation()),
        lambda: studio.move(BOB, job.id, None),
        lambda: studio.set_priority(BOB, job.id, -1),
        lambda: studio.events(BOB, job.id),
        lambda: studio.events_async(BOB, job.id),
        lambda: studio.wait(BOB, job.id, 1),
        lambda: studio.progress(BOB, job.id),
        lambda: studio.preview(BOB, job.id),
        lambda: studio.jobs(BOB, before=job.id),
        lambda: studio.picture(BOB, shown),
        lambda: studio.picture_content(BOB, shown),
        lambda: studio.remove_picture(BOB, shown),
        lambda: studio.pictures(BOB, before=shown),
    ]
    for attempt in attempts:
        with pytest.raises(NotFoundError):
            attempt()
    with pytest.raises(InputError, match="was not sent"):
        studio.submit(BOB, UpscaleRequest(task="upscale", image=sent))
    assert studio.jobs(BOB) == studio.pictures(BOB) == studio.interrupt(BOB) == []
    assert [one.id for one in studio.jobs(ADMIN, of="*")] == [job.id]
    assert studio.job(ADMIN, job.id).pictures == studio.pictures(ADMIN, of="ann") == job.pictures


def test_what_only_an_admin_may_do_is_forbidden(open_studio: Open) -> None:
    studio = open_studio()
    attempts: list[Callable[[], object]] = [
        lambda: studio.pause(BOB, "lunch"),
        lambda: studio.resume(BOB),
        lambda: studio.jobs(BOB, of="*"),
        lambda: studio.pictures(BOB, of="ann"),
        lambda: studio.submit(BOB, generation(), priority=1),
        lambda: studio.delete_user(BOB, "ann"),
        lambda: studio.export_user(BOB, "ann"),
    ]
    for attempt in attempts:
        with pytest.raises(ForbiddenError):
            attempt()


def test_cancel_ends_a_job_that_waits_and_one_that_runs_and_leaves_others_alone(open_studio: Open) -> None:
    gate = Gate()
    studio = open_studio(gate)
    runs, other, waits = (studio.submit(user, generation()) for user in (ANN, BOB, ANN))
    gate.arrived.wait(30)
    assert studio.cancel(ANN, waits.id).state == "cancelled"
    assert [event.kind for event in studio.events(ANN, waits.id)] == ["cancelled"]
    studio.cancel(ANN, runs.id)
    gate.open()
    assert studio.wait(ANN, runs.id, 30).state == "cancelled"
    assert studio.wait(BOB, other.id, 30).state == "done"
    assert studio.cancel(BOB, other.id).state == "done"


def test_interrupt_ends_ones_own_running_jobs_alone(open_studio: Open) -> None:
    gates = Gate(), Gate()
    studio = open_studio(*gates)
    jobs = {user.name: studio.submit(user, generation()) for user in (ANN, BOB)}
    for gate in gates:
        assert gate.arrived.wait(30)
    assert set(studio.dispatcher.running.values()) == {job.id for job in jobs.values()}
    assert studio.interrupt(ANN) == [jobs["ann"].id]
    for gate in gates:
        gate.open()
    assert studio.wait(ANN, jobs["ann"].id, 30).state == "cancelled"
    assert studio.wait(BOB, jobs["bob"].id, 30).state == "done"


def test_retry_edit_move_and_priority_change_what_waits(open_studio: Open) -> None:
    studio = open_studio()
    studio.pause(ADMIN, "lunch")
    first, second = studio.submit(ANN, generation("first")), studio.submit(ANN, generation("second"))
    with pytest.raises(ConflictError):
        studio.retry(ANN, first.id)
    with pytest.raises(ConflictError):
        studio.skip(ANN, first.id)
    studio.edit(ANN, first.id, generation("blue"))
    studio.move(ANN, second.id, first.id)
    assert (studio.job(ANN, second.id).ahead, studio.job(ANN, first.id).ahead) == (0, 1)
    studio.set_priority(ADMIN, first.id, 5)
    assert studio.job(ANN, first.id).ahead == 0
    assert studio.queue().reason == "lunch"
    studio.resume(ADMIN)
    done = studio.wait(ANN, first.id, 30)
    assert done.pictures[0].settings["prompt"] == "blue"
    again = studio.wait(ANN, studio.retry(ANN, first.id).id, 30)
    assert (again.state, again.retry_of, again.request) == ("done", first.id, done.request)


def test_a_job_that_fails_says_so_in_one_sentence_and_the_queue_goes_on(open_studio: Open) -> None:
    studio = open_studio()
    job = studio.wait(ANN, studio.submit(ANN, generation("fail")).id, 30)
    assert (job.state, job.error) == ("failed", "it failed, as the prompt asked.")
    assert list(studio.events(ANN, job.id))[-1].data["error"] == job.error
    assert studio.wait(ANN, studio.submit(ANN, generation()).id, 30).state == "done"


def test_what_is_sent_is_looked_at_before_it_is_kept(open_studio: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEESR_INPUT_PIXELS", "5000")
    studio = open_studio()
    for content, sentence in ((b"<svg/>", "not a picture"), (b"", "not a picture"), (picture(80), "at most 5,000")):
        with pytest.raises(InputError, match=sentence):
            studio.upload(ANN, content)
    with pytest.raises(InputError, match="another content hash"):
        studio.submit(ANN, TagsRequest(task="tags", image="0" * 64), {"0" * 64: picture(8)})
    assert list((studio.files.root / "inputs").iterdir()) == []
    name = content_hash(picture(8))
    job = studio.submit(ANN, TagsRequest(task="tags", image=name), {name: picture(8)})
    assert studio.wait(ANN, job.id, 30).result == {"tags": {"cat": 0.9}}


def test_the_operators_limits_hold(open_studio: Open) -> None:
    studio = open_studio(quota_bytes=2000, steps=40, user_queue_length=1)
    with pytest.raises(LimitError, match="steps"):
        studio.submit(ANN, generation(batch_count=50))
    studio.wait(ANN, studio.submit(ANN, generation(batch_count=4)).id, 30)
    with pytest.raises(LimitError, match="quota"):
        [studio.wait(ANN, studio.submit(ANN, generation(batch_count=4)).id, 30) for _ in range(10)]
    studio.pause(ADMIN, "")
    studio.submit(BOB, generation())
    with pytest.raises(LimitError, match="pending"):
        studio.submit(BOB, generation())


def test_a_full_disk_pauses_the_queue_which_goes_on_when_there_is_room(open_studio: Open) -> None:
    gate = Gate()
    studio = open_studio(gate)
    runs, waits = studio.submit(ANN, generation()), studio.submit(ANN, generation())
    assert gate.arrived.wait(30)
    reserve, studio.files.reserve = studio.files.reserve, 1 << 60
    gate.open()
    failed = studio.wait(ANN, runs.id, 30)
    assert (failed.state, failed.pictures) == ("failed", [])
    assert "disk is full" in (failed.error or "")
    assert wait_for(lambda: studio.queue().reason == DISK_FULL)
    assert studio.job(ANN, waits.id).state == "pending"
    studio.files.reserve = reserve
    assert studio.wait(ANN, waits.id, 30).state == "done"


def test_closing_interrupts_what_runs_and_keeps_what_waits(open_studio: Open) -> None:
    gate = Gate()
    studio = open_studio(gate)
    runs, waits = studio.submit(ANN, generation()), studio.submit(ANN, generation())
    assert gate.arrived.wait(30)
    threading.Timer(0.2, gate.open).start()
    studio.close()
    studio = open_studio()
    assert studio.wait(ANN, waits.id, 30).state == "done"
    interrupted = studio.job(ANN, runs.id)
    assert (interrupted.state, interrupted.error) == ("interrupted", "the studio was stopped while this job ran; retry it.")
    assert [event.data["state"] for event in studio.events(ANN, runs.id, after=7)] == ["interrupted"]
    with pytest.raises(ConflictError, match="another studio"):
        open_studio()


def test_a_worker_that_raises_ends_its_job_and_the_queue_goes_on(open_studio: Open) -> None:
    class Broken(StandInWorker):
        def run(self, job: str, *others: object) -> None:
            if not self.ran:
                self.ran.append(job)
                raise RuntimeError("a mistake")
            super().run(job, *others)  # type: ignore[arg-type]

    studio = open_studio(Broken())
    job = studio.wait(ANN, studio.submit(ANN, generation()).id, 30)
    assert job.state == "interrupted"
    assert studio.wait(ANN, studio.submit(ANN, generation()).id, 30).state == "done"


def test_a_user_is_exported_and_removed_with_all_files(open_studio: Open) -> None:
    studio = open_studio()
    for user in (ANN, BOB):
        studio.store.add_user(user.name, None)
        sent = studio.upload(user, picture(32 if user is ANN else 48))
        studio.wait(user, studio.submit(user, UpscaleRequest(task="upscale", image=sent)).id, 30)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(studio.export_user(ANN, "ann"))))
    assert archive.testzip() is None
    (job,) = json.loads(archive.read("jobs.json"))
    assert Job.model_validate(job) == studio.jobs(ANN)[0]
    names = [name for name in archive.namelist() if name.startswith("pictures/")]
    assert [content_hash(archive.read(name)) for name in names] == [studio.pictures(ANN)[0].digest]
    studio.delete_user(ADMIN, "ann")
    assert studio.jobs(ANN) == studio.pictures(ANN) == []
    assert [path.stem for path in (studio.files.root / "outputs").glob("*/*")] == [studio.pictures(BOB)[0].id]


def test_tidying_removes_what_no_row_names_and_nothing_else(open_studio: Open, tmp_path: Path) -> None:
    studio = open_studio()
    sent = studio.upload(ANN, picture(32))
    job = studio.wait(ANN, studio.submit(ANN, UpscaleRequest(task="upscale", image=sent)).id, 30)
    _, kept = studio.picture_content(ANN, job.pictures[0].id)
    orphans = [kept.with_name("0" * 32 + ".png"), kept.with_name(".seesr-1.part"), studio.files.root / "inputs" / ("0" * 64)]
    for path in orphans:
        path.write_bytes(b"what a kill left")
    studio.tidy()
    assert all(path.exists() for path in orphans)  # young: their rows may come
    make_old([*orphans, kept, studio.files.root / "inputs" / sent])
    studio.tidy()
    assert not any(path.exists() for path in orphans)
    assert kept.exists()
    assert studio.files.input(sent) == picture(32)


def test_pruning_removes_ones_own_ended_jobs(open_studio: Open) -> None:
    studio = open_studio()
    mine, others = (studio.wait(user, studio.submit(user, generation()).id, 30) for user in (ANN, BOB))
    later = datetime.now(UTC) + timedelta(seconds=1)
    assert studio.prune(ANN, later, keep_pictures=True) == 0
    assert (studio.jobs(ANN), len(studio.pictures(ANN))) == ([], 1)
    assert studio.prune(BOB, later, keep_pictures=False) == 1
    assert not studio.files.path(others.pictures[0]).exists()
    assert studio.files.path(mine.pictures[0]).exists()


def make_old(paths: list[Path]) -> None:
    """As if they had been written two hours ago."""
    for path in paths:
        os.utime(path, (time.time() - 7200,) * 2)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
