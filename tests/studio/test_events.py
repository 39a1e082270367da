"""Events: in their order, once each, for whoever listens now, later, or again."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from seesr.jobs import JobEvent
from seesr.studio.events import MAX_ENDED, MAX_PASSING, EventLog

KINDS = st.lists(st.sampled_from(["progress", "preview", "note", "picture"]), max_size=60)


def event(kind: str, job: str = "a", number: int = 0) -> JobEvent:
    values = {"job": job, "sequence": 0, "kind": kind, "data": {"number": number}}
    return JobEvent.model_validate(values | ({"content": b"jpeg"} if kind == "preview" else {}))


def filled(kinds: list[str], end: bool = True) -> tuple[EventLog, list[JobEvent]]:
    log = EventLog()
    told = [log.publish("ann", event(kind, number=number)) for number, kind in enumerate([*kinds, *["done"] * end])]
    return log, told


@given(kinds=KINDS, after=st.integers(0, 70))
def test_a_listener_that_comes_back_gets_the_rest_without_previews_that_newer_ones_replaced(
    kinds: list[str], after: int
) -> None:
    log, told = filled(kinds)
    assert [one.sequence for one in told] == list(range(1, len(told) + 1))
    rest = [one for one in told if one.sequence > after and one.kind != "preview"]
    assert list(log.subscribe("a", after)) == rest


@given(kinds=KINDS, breaks=st.lists(st.integers(1, 5), max_size=10))
def test_a_listener_whose_connection_breaks_again_and_again_misses_nothing(kinds: list[str], breaks: list[int]) -> None:
    log, told = EventLog(), list[JobEvent]()

    def publish() -> None:
        for kind in [*kinds, "done"]:
            log.publish("ann", event(kind))

    writer = threading.Thread(target=publish)
    writer.start()
    for count in [*breaks, 1000]:
        last = told[-1].sequence if told else 0
        for one, _ in zip(log.subscribe("a", last), range(count), strict=False):
            told.append(one)
        if told and told[-1].kind == "done":
            break
    writer.join()
    lasting = ["note", "picture", "done"]
    assert [one.kind for one in told if one.kind in lasting] == [kind for kind in [*kinds, "done"] if kind in lasting]
    assert [one.sequence for one in told] == sorted({one.sequence for one in told})


def test_after_the_end_nothing_is_added() -> None:
    log, told = filled(["note"])
    assert log.publish("ann", event("picture")) == told[-1]
    assert list(log.subscribe("a")) == told


def test_memory_is_bounded_in_a_job_and_over_jobs_and_old_ends_come_from_the_store() -> None:
    log = EventLog(lambda job: event("failed", job))
    for number in range(5 * MAX_PASSING):
        log.publish("ann", event("progress", number=number))
        log.publish("ann", event("preview", number=number))
    kept = log._logs["a"]
    assert len(kept.passing) <= MAX_PASSING
    assert [one.kind for one in kept.passing].count("preview") == 1
    newest, preview = log.progress("a"), log.preview("a")
    assert newest is not None
    assert preview is not None
    assert newest.data == preview.data == {"number": 5 * MAX_PASSING - 1}
    log.publish("ann", event("done"))
    assert log.preview("a") is None
    for number in range(2 * MAX_ENDED):
        log.publish("ann", event("done", job=f"job {number}"))
    assert len(log._logs) == MAX_ENDED
    assert [(one.kind, one.sequence) for one in log.subscribe("a", after=7)] == [("failed", 8)]


def test_a_silent_job_is_listened_to_for_as_long_as_was_asked() -> None:
    log, told = filled(["note"], end=False)
    assert list(log.subscribe("a", timeout=0.01)) == told
    assert log._wakers == {}


def test_event_loops_listen_to_a_job_and_to_all_jobs_of_a_user() -> None:
    log = EventLog()

    async def listen() -> tuple[list[str], list[str]]:
        async def of_job() -> list[str]:
            return [one.kind async for one in log.subscribe_async("a", timeout=20)]

        async def of_user() -> list[str]:
            return [f"{one.job} {one.kind}" async for one in log.subscribe_user_async("ann", timeout=0.5)]

        tasks = [asyncio.create_task(of_job()), asyncio.create_task(of_user())]
        await asyncio.sleep(0.1)
        for user, job in (("ann", "a"), ("bob", "b"), ("ann", "c")):
            for kind in ("started", "done"):
                await asyncio.to_thread(log.publish, user, event(kind, job))
        first, second = await asyncio.gather(*tasks)
        return first, second

    of_job, of_user = asyncio.run(listen())
    assert of_job == ["started", "done"]
    assert of_user == ["a started", "a done", "c started", "c done"]
    assert log._wakers == {}
