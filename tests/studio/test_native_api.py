"""The native API's own words on the wire: streams, forms, headers, queries, and what a page of documentation says of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from job_requests import generation
from sqlalchemy import event as sql_event
from stand_in_worker import picture as png
from studio_server import ServedStudio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from seesr.jobs import content_hash
from seesr.studio.api.native import PREFIX
from seesr.studio.records import Preferences, User


@pytest.fixture
def ben(served: ServedStudio) -> Iterator[httpx.Client]:
    with http(served, "ben") as client:
        yield client


def http(served: ServedStudio, user: str) -> httpx.Client:
    """A plain client of a user's."""
    headers = {"Authorization": f"Bearer {served.key(user)}"}
    return httpx.Client(base_url=served.address + PREFIX, headers=headers, timeout=20)


def submit(client: httpx.Client, prompt: str = "a cat", **options: Any) -> str:
    body = {"request": generation(prompt, **options).model_dump(mode="json")}
    return client.post("/jobs", json=body).raise_for_status().json()["id"]


def read_stream(client: httpx.Client, path: str, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    """(id, data) of each server-sent event."""
    events, id = list[tuple[str, dict[str, Any]]](), ""
    with client.stream("GET", path, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for block in "".join(response.iter_text()).split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in lines:
                events.append((lines.get("id", id), json.loads(lines["data"])))
    return events


def test_events_are_numbered_and_resumed_by_header_or_query(ben: httpx.Client) -> None:
    job = submit(ben, batch_count=2)
    events = read_stream(ben, f"/jobs/{job}/events")
    assert [id for id, _ in events] == [str(data["sequence"]) for _, data in events]
    assert (events[0][1]["kind"], events[-1][1]["kind"]) == ("started", "done")
    middle = events[len(events) // 2][0]
    rest = [data for id, data in events if int(id) > int(middle)]
    for again in (
        read_stream(ben, f"/jobs/{job}/events", **{"Last-Event-ID": middle}),
        read_stream(ben, f"/jobs/{job}/events?after={middle}"),
    ):
        # Previews and most progress are gone with the job's end; what lasts is told again.
        assert [data for _, data in again if data["kind"] != "preview"] == [r for r in rest if r["kind"] != "preview"]
    assert read_stream(ben, f"/jobs/{job}/events?after={events[-1][0]}") == []


def test_previews_come_with_their_picture(ben: httpx.Client) -> None:
    job = submit(ben, "slow")
    with ben.stream("GET", f"/jobs/{job}/events") as response:
        for line in response.iter_lines():
            if line.startswith("data:") and (data := json.loads(line[5:]))["kind"] == "preview":
                break
    assert len(data["preview"]) > 100
    assert ben.delete(f"/jobs/{job}").status_code == 200


def test_a_web_socket_tells_the_same(served: ServedStudio, ben: httpx.Client) -> None:
    job = submit(ben)
    events = [data for _, data in read_stream(ben, f"/jobs/{job}/events")]
    address = f"{served.address}{PREFIX}".replace("http", "ws", 1)
    key = {"Authorization": ben.headers["authorization"]}
    for after in (0, events[-3]["sequence"]):
        with connect(f"{address}/jobs/{job}/events?after={after}", additional_headers=key) as socket:
            told = [json.loads(message) for message in socket]
        assert told == [data for data in events if data["sequence"] > after and data["kind"] != "preview"]
    with connect(f"{address}/events", additional_headers=key) as socket:
        other = submit(ben)
        kinds = list[str]()
        while "done" not in kinds:
            data = json.loads(socket.recv(20))
            assert data["job"] == other
            kinds.append(data["kind"])


def test_web_sockets_of_strangers_are_refused(served: ServedStudio, ben: httpx.Client) -> None:
    job = submit(ben)
    address = f"{served.address}{PREFIX}/jobs/{job}/events".replace("http", "ws", 1)
    ben_key = {"Authorization": ben.headers["authorization"]}
    with http(served, "anna") as anna:
        foreign = submit(anna)
    for path, headers, status in (
        (address, {}, 403),
        (address, ben_key | {"Origin": "https://evil.example"}, 403),
        (address, ben_key | {"Origin": "null"}, 403),
        (address.replace(job, foreign), ben_key, 404),
        (address.replace(job, "nothing"), ben_key, 404),
    ):
        with pytest.raises(InvalidStatus) as refused, connect(path, additional_headers=headers):
            pass
        assert refused.value.response.status_code == status


def test_a_form_brings_its_pictures(ben: httpx.Client) -> None:
    content, mask = png(64), png(32)
    request = json.dumps({"task": "inpainting", "options": {"prompt": "a hat"}})
    answer = ben.post("/jobs/form", data={"request": request}, files={"image": content, "mask": mask})
    assert answer.status_code == 201, answer.text
    kept = answer.json()["request"]
    assert (kept["image"], kept["mask"]) == (content_hash(content), content_hash(mask))
    for form, files, status in (
        ({"request": request}, {"image": content}, 400),
        ({"request": "{"}, {"image": content, "mask": mask}, 422),
        ({"request": json.dumps({"task": "upscale", "image": "0" * 64})}, {"image": content}, 400),
        ({"request": json.dumps({"task": "upscale", "options": {"scale": 99}})}, {"image": content}, 400),
        ({"request": json.dumps({"task": "tags"})}, {"image": b"<svg/>"}, 400),
    ):
        answer = ben.post("/jobs/form", data=form, files=files)
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"message", "code"}


def test_a_file_is_served_so_that_a_browser_only_shows_it(ben: httpx.Client) -> None:
    job = submit(ben)
    read_stream(ben, f"/jobs/{job}/events")
    picture = ben.get(f"/jobs/{job}").json()["pictures"][0]
    path = f"/pictures/{picture['id']}/file"
    answer = ben.get(path)
    assert content_hash(answer.content) == picture["digest"]
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == f'attachment; filename="a-cat-{picture["id"][:8]}.png"'
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["etag"] == f'"{picture["digest"]}"'
    assert ben.get(path, headers={"If-None-Match": f'"other", W/"{picture["digest"]}"'}).status_code == 304
    assert ben.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert ben.get(path, headers={"Range": "bytes=0-3"}).content == b"\x89PNG"


def test_a_look_at_a_job_or_a_page_takes_few_queries_however_much_there_is(served: ServedStudio, ben: httpx.Client) -> None:
    queries = list[str]()

    def count(*args: Any) -> None:
        if not threading.current_thread().name.startswith("dispatcher"):
            queries.append(args[2])

    def ask(path: str) -> int:
        queries.clear()
        ben.get(path).raise_for_status()
        return len(queries)

    jobs = [submit(ben, batch_count=3) for _ in range(12)]
    read_stream(ben, f"/jobs/{jobs[-1]}/events")
    engine = served.studio.store._engine  # what is sent to the database is not to be seen from outside
    sql_event.listen(engine, "before_cursor_execute", count)
    try:
        assert ask("/jobs?count=1") == ask("/jobs?count=12") <= 10
        assert ask(f"/jobs/{jobs[0]}") <= 10
        assert ask("/queue") <= 8
    finally:
        sql_event.remove(engine, "before_cursor_execute", count)


def test_preferences_are_ones_own_and_change_by_field(served: ServedStudio, ben: httpx.Client) -> None:
    path = "/me/preferences"
    usual = ben.get(path).json()
    assert usual == Preferences().model_dump(mode="json")
    ben.patch(path, json={"theme": "dark", "saving": {"format": "webp", "metadata": False}}).raise_for_status()
    changed = ben.patch(path, json={"language": "it"}).json()
    assert (changed["theme"], changed["language"], changed["welcomed"]) == ("dark", "it", False)
    assert changed["saving"] == {"format": "webp", "quality": 95, "metadata": False}
    assert ben.get(path).json() == changed
    assert served.studio.preferences(User(name="anna")) == Preferences()
    assert [ben.patch(path, json=wrong).status_code for wrong in ({"theme": "pink"}, {"x": 1})] == [422, 422]
    served.studio.set_setting(User(name="ben"), "page.text", {"steps": 3})
    assert ben.delete("/me/fields").status_code == 204
    assert served.studio.setting(User(name="ben"), "page.text") is None
    assert ben.patch(path, json={"theme": None, "language": None, "saving": usual["saving"]}).json() == usual


def test_the_upscaling_model_is_the_small_one_until_the_full_one_is_here(
    ben: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEESR_CACHE", str(tmp_path))
    monkeypatch.delenv("SEESR_WEIGHTS", raising=False)
    model = ben.get("/upscaling-model").json()
    assert (model["name"], model["embedded"], model["command"]) == ("tiny", True, "seesr weights pull --accept-license")
    assert model["missing"] > 0
    assert 10_000 < model["megabytes"] < 30_000
    assert model["licence_page"].startswith("https://")
    monkeypatch.setenv("SEESR_WEIGHTS", str(tmp_path / "mine"))
    assert (ben.get("/upscaling-model").json() | {"missing": 0})["name"] == "mine"


def test_the_description_names_every_route_with_what_it_does(served: ServedStudio, ben: httpx.Client) -> None:
    description = ben.get("/openapi.json").json()
    paths = {path for path in description["paths"] if path.startswith(PREFIX)}
    assert {f"{PREFIX}/jobs", f"{PREFIX}/jobs/{{job}}/events", f"{PREFIX}/pictures/{{picture}}/file"} <= paths
    for path in paths:
        for method, operation in description["paths"][path].items():
            assert operation["description"], f"{method} {path}"
            assert {"401", "404"} <= operation["responses"].keys()
