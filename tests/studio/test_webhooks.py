"""Webhooks: what is told of a job, to whom it may be sent, and what becomes of it where nobody takes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from job_requests import generation
from stand_in_worker import StandInWorker, picture
from studio_server import serving
from webhook_sink import Message, Sink

from seesr.addresses import AddressRules
from seesr.client import Client
from seesr.errors import AddressError
from seesr.jobs import JobRequest, TagsRequest, content_hash
from seesr.studio.records import LOCAL, Job, User, Webhook
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio
from seesr.studio.webhooks import Webhooks

ADMIN = User(name=LOCAL, role="admin")
ANNA, BEN = User(name="anna"), User(name="ben")
OWN = frozenset({"127.0.0.1"})
STRANGE_ADDRESSES = [
    "http://sink.example/",
    "ftp://sink.example/",
    "file:///etc/passwd",
    "https://",
    "https://127.0.0.2/",
    "https://[::1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[fd00::1]/",
    "https://169.254.169.254/latest/meta-data",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://sink.example/a b",
    "https://sink.example/\r\nX: y",
    "https://sïnk.example/",
    "https://sink.example:0/",
    "https://sink.example:99999/",
]


@contextmanager
def studio_with(data: Path, rules: AddressRules | None = None, seconds: float = 0.0, **options: Any) -> Iterator[Studio]:
    """A studio whose webhooks are sent to this machine too, with short pauses."""
    with Studio.open(data, StudioSettings(), {"cpu": StandInWorker(seconds)}, start=False) as studio:
        options = {"pauses": (0.05, 0.1, 0.2), "answer_seconds": 5.0, "idle_seconds": 0.02} | options
        studio.webhooks = Webhooks(studio.store, rules or AddressRules(hosts=OWN), **options)
        studio.dispatcher.watchers[:] = [studio.webhooks.observe]
        studio.start()
        yield studio


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with studio_with(tmp_path) as studio:
        yield studio


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink().listening() as sink:
        yield sink


def submit(studio: Studio, url: str, *events: str, user: User = ADMIN, request: JobRequest | None = None) -> Job:
    webhook = Webhook.model_validate({"url": url} | ({"events": events} if events else {}))
    return studio.submit(user, request or generation("a cat"), webhook=webhook)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def webhook_notes(studio: Studio, job: Job) -> list[str]:
    return [note for note in studio.job(ADMIN, job.id).notes if "webhook" in note]


def is_settled(studio: Studio) -> bool:
    with studio.store._read() as session:
        return not session.connection().exec_driver_sql("SELECT 1 FROM jobs WHERE webhook_due IS NOT NULL").all()


def require_signature(message: Message, secret: str) -> None:
    """As Standard Webhooks has it: HMAC-SHA256 of id, timestamp and body with dots between."""
    id, timestamp = message.headers["webhook-id"], message.headers["webhook-timestamp"]
    assert abs(time.time() - int(timestamp)) < 300
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert 24 <= len(key) <= 64
    expected = hmac.new(key, b".".join([id.encode(), timestamp.encode(), message.body]), hashlib.sha256).digest()
    assert message.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_a_job_is_told_as_it_runs_at_most_twice_a_second_and_its_pictures_can_be_fetched(tmp_path: Path, sink: Sink) -> None:
    with serving(tmp_path, "anna", "ben", worker=StandInWorker(0.15), webhook_allow=OWN) as served:
        own = {"Authorization": f"Bearer {served.key('ben')}"}
        secret = httpx.post(f"{served.address}/api/v1/me/webhook-secret", headers=own).json()["secret"]
        with Client(served.address, key=own["Authorization"].removeprefix("Bearer ")) as client:
            job = client.submit(generation("a cat", batch_count=3), webhook=f"{sink.address}/hook?token=1")
            last = sink.wait_for_end()
            assert "webhook" not in "".join(client.wait(job.id).notes)
        for message in sink.messages:
            require_signature(message, secret)
            assert message.path == "/hook?token=1"
            assert (message.job["id"], message.job["input"]["options"]["prompt"]) == (job.id, "a cat")
        running = [message for message in sink.messages if message is not last]
        assert {message.job["status"] for message in running} == {"processing"}
        assert len({message.headers["webhook-id"] for message in sink.messages}) == len(sink.messages)
        # Measured where they arrive, which the machine may delay.
        assert all(later.moment - message.moment > 0.3 for message, later in zip(running, running[1:], strict=False))
        assert any("denoise" in message.job["logs"] for message in running)
        assert any(len(message.job["output"] or ()) in (1, 2) for message in running)
        assert last.job["status"] == "succeeded"
        assert last.job["logs"] == "a grey picture"
        assert last.job["metrics"]["predict_time"] > 1
        assert last.job["created_at"] < last.job["started_at"] < last.job["completed_at"]
        assert len(last.job["output"]) == 3
        for url in last.job["output"]:
            assert httpx.get(url).status_code == 401
            answer = httpx.get(url, headers=own)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


def test_only_what_was_asked_for_is_told(studio: Studio, sink: Sink) -> None:
    submit(studio, sink.address, "completed")
    sink.wait(1)
    with studio_paused(studio):
        submit(studio, sink.address, "output", request=generation("fail"))  # has no output
        job = submit(studio, sink.address, "start", request=generation("slow"))
    started = sink.wait(2)[1]
    assert started.job["id"] == job.id
    studio.cancel(ADMIN, job.id)
    studio.wait(ADMIN, job.id)
    wait_until(lambda: is_settled(studio))
    assert [message.job["status"] for message in sink.messages] == ["succeeded", "processing"]


@contextmanager
def studio_paused(studio: Studio) -> Iterator[None]:
    studio.pause(ADMIN, "a test")
    yield
    studio.resume(ADMIN)


def test_failed_and_cancelled_jobs_are_told(studio: Studio, sink: Sink) -> None:
    failed = submit(studio, sink.address, "completed", request=generation("fail"))
    running = submit(studio, sink.address, "start", "completed", request=generation("slow"))
    pending = submit(studio, sink.address, "completed")
    studio.cancel(ADMIN, pending.id)
    wait_until(lambda: any(message.job["id"] == running.id for message in sink.messages))
    studio.cancel(ADMIN, running.id)
    ends = {message.job["id"]: message.job for message in sink.wait(4)}
    assert {id: job["status"] for id, job in ends.items()} == {
        failed.id: "failed",
        running.id: "canceled",
        pending.id: "canceled",
    }
    assert ends[failed.id]["error"] == "it failed, as the prompt asked."


def test_output_of_tags_is_what_was_found(studio: Studio, sink: Sink) -> None:
    content = picture(64)
    request = TagsRequest(task="tags", image=content_hash(content))
    studio.submit(ADMIN, request, {request.image: content}, webhook=Webhook(url=sink.address))
    assert sink.wait_for_end().job["output"] == {"cat": 0.9}


def test_an_end_is_told_again_under_the_same_id_until_it_is_taken_also_of_a_retry(studio: Studio) -> None:
    with Sink(statuses=[500, 429, 204]).listening() as sink:
        job = submit(studio, sink.address, "completed")
        messages = list(sink.wait(3))
        assert {message.headers["webhook-id"] for message in messages} == {f"msg_{job.id}_completed"}
        assert messages[1].moment - messages[0].moment >= 0.04
        assert messages[2].moment - messages[1].moment >= 0.09
        wait_until(lambda: is_settled(studio))
        assert webhook_notes(studio, job) == []
        again = studio.retry(ADMIN, job.id)
        assert sink.wait(4)[3].job["id"] == again.id


@pytest.mark.parametrize(("status", "tries"), [(500, 4), (404, 4), (302, 4), (410, 1)])
def test_an_end_that_is_not_taken_is_given_up_with_a_note(studio: Studio, sink: Sink, status: int, tries: int) -> None:
    # A redirect is not followed, wherever it leads.
    with Sink(statuses=[status], location=f"{sink.address}/inward").listening() as failing:
        job = submit(studio, failing.address, "completed")
        wait_until(lambda: bool(webhook_notes(studio, job)))
        note = f"the webhook was not delivered: {failing.address} answered {status}."
        assert webhook_notes(studio, job) == [note]
        assert len(failing.messages) == tries
        assert sink.messages == []
        assert studio.job(ADMIN, job.id).state == "done"


def test_of_a_sink_that_fails_only_the_end_is_told(tmp_path: Path) -> None:
    with studio_with(tmp_path, seconds=0.3) as studio, Sink(statuses=[500, 200]).listening() as sink:
        submit(studio, sink.address)
        assert sink.wait_for_end().job["status"] == "succeeded"
        assert len(sink.messages) == 2


def test_ends_that_nobody_took_are_told_after_a_restart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    url = f"http://127.0.0.1:{port}/hook"
    with studio_with(tmp_path, pauses=(0.2,) * 1000) as studio:
        done = submit(studio, url)
        studio.wait(ADMIN, done.id)
        running = submit(studio, url, "completed", request=generation("slow"))
        wait_until(lambda: studio.job(ADMIN, running.id).state == "running")
    with Sink().listening(port) as sink, studio_with(tmp_path) as studio:
        told = {message.job["id"]: message.job["status"] for message in sink.wait(2)}
        assert told == {done.id: "succeeded", running.id: "failed"}
        wait_until(lambda: is_settled(studio))


@pytest.mark.parametrize("behaviour", [{"hold": True}, {"dribble": 0.05}], ids=["silent", "byte by byte"])
def test_a_slow_sink_holds_up_neither_the_queue_nor_other_users(
    tmp_path: Path, sink: Sink, behaviour: dict[str, Any]
) -> None:
    if "hold" in behaviour:
        behaviour = {"hold": threading.Event()}
    with studio_with(tmp_path, answer_seconds=4.0, pauses=()) as studio, Sink(**behaviour).listening() as slow:
        stuck = submit(studio, slow.address, "completed", user=ANNA)
        slow.wait(1)
        for _ in range(3):
            submit(studio, sink.address, "completed", user=BEN)
        sink.wait(3)
        assert webhook_notes(studio, stuck) == []  # still waited for
        wait_until(lambda: bool(webhook_notes(studio, stuck)))
        assert webhook_notes(studio, stuck) == [f"the webhook was not delivered: {slow.address} does not answer."]


def test_addresses_that_are_not_public_ones_of_https_are_refused(studio: Studio) -> None:
    for url in STRANGE_ADDRESSES:
        with pytest.raises(AddressError, match=r"https|public|ASCII|not an address"):
            submit(studio, url)
    assert studio.jobs(ADMIN) == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["93.184.216.34", "10.0.0.7"], ["::1"], ["::ffff:192.168.0.1"], ["fec0::7"], ["64:ff9b:1::a00:7"]],
)
def test_a_name_that_leads_inward_is_not_connected_to(tmp_path: Path, sink: Sink, addresses: list[str]) -> None:
    asked = list[str]()

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    with studio_with(tmp_path, AddressRules(resolve=resolve)) as studio:
        url = sink.address.replace("http://127.0.0.1", "https://inward.example")
        job = submit(studio, url, "completed")
        wait_until(lambda: bool(webhook_notes(studio, job)))
        assert webhook_notes(studio, job) == [f"the webhook was not delivered: {url} is not a public address of https."]
    assert asked == ["inward.example"]
    assert sink.messages == []


def test_the_address_that_was_checked_is_connected_to_and_tls_is_for_the_name() -> None:
    asked, hello = list[str](), list[bytes]()

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            hello.append(connection.recv(2000))
            connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        rules = AddressRules(hosts=frozenset({"sink.example"}), resolve=resolve)
        with pytest.raises(OSError):  # noqa: PT011 of TLS, whatever its words
            rules.post(f"https://sink.example:{listener.getsockname()[1]}/", b"{}", {}, 5)
        thread.join()
    assert b"sink.example" in hello[0]  # the name that the certificate is to be of
    assert asked == ["sink.example"]


def test_a_renewed_secret_signs_from_then_on_and_goes_with_its_user(studio: Studio, sink: Sink) -> None:
    studio.store.add_user("anna", None)
    first, second = studio.webhooks.renew_secret("anna"), studio.webhooks.renew_secret("anna")
    submit(studio, sink.address, "completed", user=ANNA)
    message = sink.wait(1)[0]
    require_signature(message, second)
    with pytest.raises(AssertionError):
        require_signature(message, first)
    wait_until(lambda: is_settled(studio))
    studio.delete_user(ADMIN, "anna")
    assert studio.store.webhook_secret("anna") is None


def test_the_specifications_own_library_verifies_the_signature(studio: Studio, sink: Sink) -> None:
    library = pytest.importorskip("standardwebhooks", reason="needs pip install standardwebhooks")
    secret = studio.webhooks.renew_secret(LOCAL)
    submit(studio, sink.address, "completed")
    message = sink.wait(1)[0]
    assert library.Webhook(secret).verify(message.body, message.headers) == message.job
    with pytest.raises(library.WebhookVerificationError):
        library.Webhook(secret).verify(message.body + b" ", message.headers)
