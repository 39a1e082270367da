"""The clients of the native API, blocking and asynchronous, against a real server."""

from __future__ import annotations

import asyncio
import io
import threading
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from job_requests import generation
from PIL import Image
from stand_in_worker import StandInWorker
from stand_in_worker import picture as png
from studio_server import ServedStudio, listening, studio_app

from seesr.client import AsyncClient, Client, ResponseError, UnreachableError, WaitTimeoutError
from seesr.jobs import JobEvent, TagsRequest, UpscaleRequest, content_hash
from seesr.options import Options


def test_a_job_from_request_to_picture(ben: Client) -> None:
    job = ben.submit(generation("a cat", batch_count=3))
    assert (job.user, job.state, job.request.options.prompt) == ("ben", "pending", "a cat")
    ended = ben.wait(job.id, timeout=20)
    assert ended.state == "done"
    assert [picture.index for picture in ended.pictures] == [0, 1, 2]
    for picture in ended.pictures:
        assert ben.picture(picture.id) == picture
        content = ben.picture_file(picture.id)
        assert content_hash(content) == picture.digest
        assert Image.open(io.BytesIO(content)).size == (picture.width, picture.height)
    ben.remove_picture(ended.pictures[0].id)
    with pytest.raises(ResponseError) as refused:
        ben.picture_file(ended.pictures[0].id)
    assert refused.value.status == 404


def test_pictures_are_uploaded_and_named_by_their_hash(ben: Client) -> None:
    content = png(48)
    job = ben.submit(UpscaleRequest(task="upscale", options=Options(scale=2), image=content_hash(content)), [content])
    assert ben.wait(job.id, timeout=20).state == "done"
    tags = ben.wait(ben.submit(TagsRequest(task="tags", image=content_hash(content))).id, timeout=20)
    assert tags.result["tags"]
    with pytest.raises(ResponseError, match="upload") as refused:
        ben.submit(TagsRequest(task="tags", image=content_hash(b"never sent")))
    assert refused.value.status == 400
    with pytest.raises(ResponseError, match="not a picture"):
        ben.upload(b"no picture")


def test_what_another_user_has_is_not_there(anna: Client, ben: Client) -> None:
    job = anna.submit(generation("a secret"))
    picture = anna.wait(job.id, timeout=20).pictures[0]
    for ask in (
        lambda: ben.job(job.id),
        lambda: ben.cancel(job.id),
        lambda: ben.retry(job.id),
        lambda: ben.skip(job.id),
        lambda: ben.change(job.id, generation("mine")),
        lambda: next(ben.events(job.id)),
        lambda: ben.picture(picture.id),
        lambda: ben.picture_file(picture.id),
        lambda: ben.remove_picture(picture.id),
        lambda: ben.export("anna"),
        lambda: ben.remove_user("anna"),
    ):
        with pytest.raises(ResponseError) as refused:
            ask()
        assert refused.value.status == 404
    for ask in (lambda: ben.pause(), lambda: ben.resume(), lambda: ben.users(), lambda: ben.jobs(of="anna")):
        with pytest.raises(ResponseError) as refused:
            ask()
        assert refused.value.status == 403
    assert job.id not in {other.id for other in ben.jobs(count=200).jobs}
    assert job.id in {other.id for other in anna.jobs(count=200, of="*").jobs}


def test_the_queue_waits_moves_and_changes(anna: Client, ben: Client) -> None:
    assert anna.pause("tea").reason == "tea"
    try:
        first, second = (ben.submit(generation(name)) for name in ("first", "second"))
        assert ben.queue().paused
        ben.move(second.id, before=first.id)
        assert ben.job(second.id).ahead == 0
        assert ben.change(first.id, generation("a dog")).request.options.prompt == "a dog"
        assert anna.change(first.id, priority=5).priority == 5
        with pytest.raises(ResponseError) as refused:
            ben.change(second.id, priority=5)
        assert refused.value.status == 403
        assert ben.cancel(second.id).state == "cancelled"
        with pytest.raises(WaitTimeoutError, match="pending"):
            ben.wait(first.id, timeout=0.1)
    finally:
        anna.resume()
    assert ben.wait(first.id, timeout=20).state == "done"
    again = ben.retry(first.id)
    assert again.retry_of == first.id
    with pytest.raises(ResponseError) as refused:
        ben.change(first.id, generation("too late"))
    assert refused.value.status == 409


def test_cancel_ends_a_job_within_a_step_and_only_that_one(ben: Client) -> None:
    job, next_job = ben.submit(generation("slow")), ben.submit(generation("next"))
    events = ben.events(job.id)
    assert next(event for event in events if event.kind == "progress").data["step"] == 0
    ben.cancel(job.id)
    assert [event.kind for event in events][-1] == "cancelled"
    assert ben.job(job.id).state == "cancelled"
    assert ben.wait(next_job.id, timeout=20).state == "done"
    running = ben.submit(generation("slow"))
    assert next(ben.events(running.id)).kind == "started"
    assert ben.interrupt() == [running.id]
    assert ben.wait(running.id, timeout=20).state == "cancelled"


def test_pages_hold_every_job_once(ben: Client) -> None:
    made = [ben.submit(generation(str(number))).id for number in range(7)]
    seen, page = list[str](), ben.jobs(count=3)
    while page.next is not None:
        seen += [job.id for job in page.jobs]
        page = ben.jobs(count=3, before=page.next)
    seen += [job.id for job in page.jobs]
    assert len(seen) == len(set(seen))
    assert seen[:7] == made[::-1]
    for id in made:
        ben.wait(id, timeout=20)
    assert {job.state for job in ben.jobs(states=["done"], count=200).jobs} == {"done"}


def test_settings_options_samplers_and_facts(ben: Client) -> None:
    picture = ben.wait(ben.submit(generation("a cat")).id, timeout=20).pictures[0]
    assert ben.settings(ben.picture_file(picture.id)).keys() == {"settings", "infotext"}
    options = {option.name: option for option in ben.options().generation}
    assert (options["steps"].minimum, options["steps"].maximum, options["steps"].default) == (1, 150, None)
    assert "masked" in options["inpaint_area"].choices
    assert options["prompt"].help
    assert "Euler a" in [sampler.name for sampler in ben.samplers().samplers]
    assert ben.styles() == []
    assert ben.system().devices["cpu"].loaded == ["stand-in"]


def test_users_keys_and_the_end_of_a_user(served: ServedStudio, anna: Client) -> None:
    assert anna.add_user("carl", "carl's password").role == "user"
    with Client(served.address, user=("carl", "carl's password")) as carl:
        key = carl.add_key("phone")
        assert [known.label for known in carl.list_keys()] == ["phone"]
        job = carl.wait(carl.submit(generation("a cat")).id, timeout=20)
        with Client(served.address, key=key.key) as phone:
            assert phone.me() == carl.me()
            with zipfile.ZipFile(io.BytesIO(phone.export("carl"))) as archive:
                assert archive.testzip() is None
                assert any(job.pictures[0].id in name for name in archive.namelist())
            carl.remove_key(carl.list_keys()[0].id)
            with pytest.raises(ResponseError) as refused:
                phone.me()
        assert refused.value.status == 401
        carl.set_password("carl", "another password")
        with pytest.raises(ResponseError) as refused:
            carl.me()
        assert refused.value.status == 401
    anna.remove_user("carl")
    assert "carl" not in [user.name for user in anna.users()]
    with pytest.raises(ResponseError) as refused:
        anna.job(job.id)
    assert refused.value.status == 404


def test_old_jobs_are_pruned(anna: Client, ben: Client) -> None:
    theirs = ben.wait(ben.submit(generation("ben's")).id, timeout=20)
    kept, removed = (anna.wait(anna.submit(generation(name)).id, timeout=20) for name in ("kept", "removed"))
    assert anna.prune(kept.ended or kept.created, keep_pictures=True) == 0
    assert anna.prune(datetime.now(UTC), keep_pictures=False) == 2
    assert anna.jobs(count=200).jobs == []
    assert {picture.job for picture in anna.pictures(count=200).pictures}.isdisjoint({kept.id, removed.id})
    assert ben.job(theirs.id) == theirs


def test_events_go_on_where_they_broke_off(tmp_path: Path) -> None:
    """The server goes away in the middle of a job, and comes back at the same address: nothing is told twice or lost."""
    with studio_app(tmp_path, worker=StandInWorker(0.15)) as served:
        events, told = list[JobEvent](), threading.Event()

        def listen(address: str, job: str) -> None:
            with Client(address) as client:
                for event in client.events(job):
                    events.append(event)
                    if event.kind == "picture":
                        told.set()

        with listening(served.app) as address, Client(address) as client:
            job = client.submit(generation("a cat", batch_count=4)).id
            thread = threading.Thread(target=listen, args=(address, job))
            thread.start()
            assert told.wait(20)
        time.sleep(0.3)
        with listening(served.app, int(address.rpartition(":")[2])):
            thread.join(30)
        assert not thread.is_alive()
    assert events[-1].kind == "done"
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert [event.data["index"] for event in events if event.kind == "picture"] == [0, 1, 2, 3]


def test_a_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    """As by uvicorn, which ends a connection that it kept in the moment in which it is used again."""
    broken, tried = iter([True, False, True, True, True]), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        tried.append(request.method)
        if next(broken):
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, json={"name": "ben", "role": "user"})

    with Client(transport=httpx.MockTransport(answer)) as client:
        assert client.me().name == "ben"
        with pytest.raises(UnreachableError, match="disconnected"):
            client.me()
        with pytest.raises(UnreachableError):
            client.interrupt()  # may have been done: it is not asked twice
    assert tried == ["GET"] * 4 + ["POST"]


def test_a_studio_that_is_not_there(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(UnreachableError, match=r"http://127.0.0.1:9 .*seesr studio"):
        client.me()
    with studio_app(tmp_path) as served, listening(served.app) as address:
        for path, status in (("/nothing", 401), ("/api/v1/nothing", 404)):
            answer = httpx.get(f"{address}{path}")
            assert answer.status_code in (status, 404)
            assert answer.json()["error"]["message"]


def test_the_asynchronous_client_does_the_same(served: ServedStudio) -> None:
    async def run() -> None:
        async with AsyncClient(served.address, key=served.key("ben")) as client:
            assert (await client.me()).name == "ben"
            content = png(48)
            jobs = await asyncio.gather(*(client.submit(generation(str(number))) for number in range(3)))
            kinds = [[event.kind async for event in client.events(job.id)] for job in jobs]
            assert all(kind[0] == "started" and kind[-1] == "done" for kind in kinds)
            ended = [await client.wait(job.id, timeout=20) for job in jobs]
            assert {job.state for job in ended} == {"done"}
            picture = ended[0].pictures[0]
            assert content_hash(await client.picture_file(picture.id)) == picture.digest
            assert await client.upload(content) == content_hash(content)
            assert (await client.jobs(count=1)).jobs[0].user == "ben"
            slow = await client.submit(generation("slow"))
            assert (await client.cancel(slow.id)).id == slow.id
            with pytest.raises(ResponseError):
                await client.pause()
            with pytest.raises(ResponseError):
                await client.job("nothing")

    asyncio.run(run())


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, tuple[str, ...]]:
        return {
            name: method.__code__.co_varnames[: method.__code__.co_argcount]
            for name, method in vars(kind).items()
            if callable(method) and not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)
