"""The worker's process: whatever happens to it, each job ends, and the next one runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from helpers import TESTS

from seesr.generation.options import GenerationOptions
from seesr.job_runner import WorkerSettings
from seesr.jobs import GenerationRequest, JobEvent
from seesr.studio.worker.local_worker import LocalWorker

CHILD = [sys.executable, str(TESTS / "stand_in_child.py")]


@pytest.fixture
def make() -> Iterator[Callable[..., LocalWorker]]:
    """Workers with the stand-in's process, which are closed in the end."""
    workers = list[LocalWorker]()

    def build(seconds: float | None = None, cancel_seconds: float = 30) -> LocalWorker:
        workers.append(LocalWorker(WorkerSettings(seconds=seconds), "cpu", CHILD, cancel_seconds))
        return workers[-1]

    yield build
    for worker in workers:
        worker.close()


def request(prompt: str, count: int = 1) -> GenerationRequest:
    return GenerationRequest(options=GenerationOptions(prompt=prompt, batch_count=count))


def run(worker: LocalWorker, prompt: str, job: str = "a", count: int = 1) -> list[JobEvent]:
    events = list[JobEvent]()
    worker.run(job, request(prompt, count), {}, events.append)
    return events


def test_a_job_is_reported_from_its_start_to_its_end(make: Callable[..., LocalWorker]) -> None:
    worker = make()
    events = run(worker, "grey", count=2)
    assert [event.kind for event in events if event.kind not in ("progress", "preview")] == [
        *("started", "picture", "picture", "note", "done")
    ]
    pictures = [event for event in events if event.kind == "picture"]
    assert [event.data["index"] for event in pictures] == [0, 1]
    assert all((event.content or b"").startswith(b"\x89PNG") for event in pictures)
    assert worker.loaded() == ["stand-in"]


@pytest.mark.parametrize(
    ("prompt", "state", "sentence"),
    [
        ("crash", "interrupted", "the worker ended while it ran this job (exit status 3); retry it."),
        ("killed", "interrupted", "the system ended the worker, most likely because memory ran out"),
        ("hang", "failed", "the job took longer than 3 seconds, which is all that is allowed;"),
    ],
)
def test_a_job_that_ends_or_holds_up_its_worker_is_over_and_the_next_one_runs_in_a_new_process(
    make: Callable[..., LocalWorker], prompt: str, state: str, sentence: str
) -> None:
    worker = make(seconds=3 if prompt == "hang" else None, cancel_seconds=0.5)
    run(worker, "grey")
    before = worker.process_id
    last = run(worker, prompt)[-1]
    assert (last.kind, last.data["state"]) == ("failed", state)
    assert last.data["error"].startswith(sentence)
    assert run(worker, "grey", job="b")[-1].kind == "done"
    assert worker.process_id not in (before, None)


def test_a_job_beyond_its_time_that_can_be_ended_keeps_the_process(make: Callable[..., LocalWorker]) -> None:
    worker = make(seconds=0.5)
    worker.start()
    before = worker.process_id
    last = run(worker, "slow", count=100)[-1]
    assert (last.kind, last.data["code"]) == ("failed", "TimeLimitError")
    assert worker.process_id == before


def test_cancel_ends_the_job_that_it_names_and_no_other(make: Callable[..., LocalWorker]) -> None:
    worker, events = make(), list[JobEvent]()
    started = threading.Event()

    def see(event: JobEvent) -> None:
        events.append(event)
        started.set()

    thread = threading.Thread(target=worker.run, args=("mine", request("slow", 100), {}, see))
    thread.start()
    assert started.wait(60)
    worker.cancel("another")
    time.sleep(0.3)
    assert thread.is_alive()
    worker.cancel("mine")
    thread.join(10)
    assert events[-1].kind == "cancelled"


def test_a_cancelled_job_that_hangs_is_killed(make: Callable[..., LocalWorker]) -> None:
    worker, events = make(cancel_seconds=0.3), list[JobEvent]()

    def see(event: JobEvent) -> None:
        events.append(event)
        worker.cancel("a")

    worker.run("a", request("hang"), {}, see)
    assert [event.kind for event in events] == ["started", "cancelled"]


def test_a_process_that_does_not_even_take_its_job_is_killed_in_time() -> None:
    """More than a pipe holds is sent to one that reads nothing."""
    worker = LocalWorker(
        WorkerSettings(seconds=0.3), "cpu", [sys.executable, "-c", "import time; time.sleep(600)"], cancel_seconds=0.5
    )
    events, begin = list[JobEvent](), time.monotonic()
    worker.run("a", request("grey"), {"0" * 64: bytes(1 << 20)}, events.append)
    assert [(event.kind, event.data["code"]) for event in events] == [("failed", "TimeLimitError")]
    assert time.monotonic() - begin < 60
    worker.close()


def test_where_the_listener_fails_the_next_job_is_not_disturbed(make: Callable[..., LocalWorker]) -> None:
    worker = make()

    def fail(event: JobEvent) -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        worker.run("a", request("grey"), {}, fail)
    events = run(worker, "grey", job="b")
    assert {event.job for event in events} == {"b"}
    assert events[-1].kind == "done"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_its_server_however_that_ends(tmp_path: Path, number: signal.Signals) -> None:
    program = f"""
import sys, threading
from seesr.generation.options import GenerationOptions
from seesr.job_runner import WorkerSettings
from seesr.jobs import GenerationRequest
from seesr.studio.worker.local_worker import LocalWorker
worker = LocalWorker(WorkerSettings(), "cpu", {CHILD!r})
request = GenerationRequest(options=GenerationOptions(prompt="slow", batch_count=100))
worker.run("a", request, {{}}, lambda event: print(worker.process_id, flush=True))
"""
    server = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path()}
    )
    assert server.stdout is not None
    child = psutil.Process(int(server.stdout.readline()))
    server.send_signal(number)
    server.wait()
    child.wait(timeout=10)
    server.stdout.close()


def path() -> str:
    return os.pathsep.join(entry for entry in sys.path if entry)
