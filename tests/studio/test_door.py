"""The door: who is let in, and what pages elsewhere, proxies and strangers cannot do."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st
from stand_in_worker import picture as png
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from studio_server import OWN, PASSWORD, ServedStudio, studio_app

from seesr.errors import OptionError
from seesr.studio.door import OPEN_PATHS, SESSION_COOKIE
from seesr.studio.proxies import resolve_proxy
from seesr.studio.records import User
from seesr.studio.settings import StudioSettings

JOB: dict[str, Any] = {"request": {"task": "text to image", "options": {"prompt": "a cat"}}}
EVENTS = "/api/v1/events"


@pytest.fixture
def open_app(tmp_path: Path) -> Iterator[ServedStudio]:
    """Without users: whoever sits at this machine is the admin."""
    with studio_app(tmp_path) as app:
        yield app


@pytest.fixture(scope="module")
def users_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """With an admin and two users."""
    with studio_app(tmp_path_factory.mktemp("studio"), "ada", "bob", "eve") as app:
        yield app


def logged_in(app: ServedStudio, name: str = "bob") -> TestClient:
    client = app.client()
    assert client.post("/login", json={"name": name, "password": PASSWORD}).status_code == 200
    return client


def socket(client: TestClient, path: str, **headers: str) -> Any:
    """A WebSocket at the client's own host, which TestClient would replace."""
    return client.websocket_connect(f"ws{str(client.base_url)[4:].rstrip('/')}{path}", headers=headers)


def refusal(answer: Any) -> str:
    assert set(answer.json()) == {"error"}
    more = {"type", "param"} if answer.request.url.path.startswith("/v1/") else set[str]()
    assert set(answer.json()["error"]) == {"message", "code"} | more
    return answer.json()["error"]["code"]


# Pages elsewhere


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": OWN}, 201),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example:7860"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}, 415),
        ({"Host": "evil.example:7860", "Origin": "http://evil.example:7860", "Sec-Fetch-Site": "same-origin"}, 421),
        ({"Host": ""}, 421),
    ],
)
def test_page_elsewhere_cannot_send_jobs(open_app: ServedStudio, headers: dict[str, str], status: int) -> None:
    answer = open_app.client().post("/api/v1/jobs", json=JOB, headers=headers)
    assert answer.status_code == status, answer.text
    jobs = open_app.client().get("/api/v1/jobs").json()["jobs"]
    assert len(jobs) == (status == 201)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link that somebody follows
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),  # <img>, <script>
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "[::1]:7860"}, 200),
        ({"Host": "192.168.1.7:7860"}, 200),
        ({"Host": "rebound.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
    ],
)
def test_page_elsewhere_cannot_read(open_app: ServedStudio, headers: dict[str, str], status: int) -> None:
    answer = open_app.client().get("/api/v1/jobs", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_cookie_alone_changes_nothing(users_app: ServedStudio) -> None:
    """A browser sends an Origin with each change; what sends a cookie without one is no page of ours."""
    client = logged_in(users_app)
    assert refusal(client.post("/api/v1/jobs", json=JOB)) == "forbidden"
    assert client.post("/api/v1/jobs", json=JOB, headers={"Origin": OWN}).status_code == 201
    assert client.get("/api/v1/me").json()["name"] == "bob"


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [(None, True), (OWN, True), ("https://evil.example", False), ("null", False)],
)
def test_websocket_checks_the_origin(open_app: ServedStudio, origin: str | None, is_let_in: bool) -> None:
    headers = {} if origin is None else {"Origin": origin}
    if is_let_in:
        with socket(open_app.client(), EVENTS, **headers):
            return
    with pytest.raises(WebSocketDisconnect), socket(open_app.client(), EVENTS, **headers):
        pass


def test_cors_is_for_named_origins_without_cookies(tmp_path: Path) -> None:
    page = "https://page.example"
    with studio_app(tmp_path, "ada", cors_origins=[page]) as app:
        ask = {"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = app.client().options("/api/v1/jobs", headers=ask)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == page
        assert preflight.headers["access-control-allow-headers"] == "authorization"
        from_page = {"Origin": page, "Sec-Fetch-Site": "cross-site"}
        answer = app.client_of("ada").post("/api/v1/jobs", json=JOB, headers=from_page)
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == page
        assert not {"access-control-allow-credentials"} & {*preflight.headers, *answer.headers}
        other = app.client().options("/api/v1/jobs", headers={**ask, "Origin": "https://evil.example"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers
    with pytest.raises(OptionError, match="each origin in full"):
        StudioSettings.read(tmp_path / "none.toml", cors_origins=["*"])


# Proxies


def test_no_users_means_this_machine_alone(open_app: ServedStudio) -> None:
    assert open_app.client().get("/api/v1/me").json() == {"name": "local", "role": "admin", "disabled": False}
    assert refusal(open_app.client("10.0.0.9").get("/api/v1/me")) == "unauthorized"
    # A reverse proxy on this machine, which hands on what strangers send.
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert refusal(open_app.client().get("/api/v1/me", headers={header: "127.0.0.1"})) == "unauthorized"


@pytest.mark.parametrize("prefix", ["/studio", ""])
def test_proxy_at_a_root_path(tmp_path: Path, prefix: str) -> None:
    """Whether it hands the root path on or takes it off, for requests and WebSockets."""
    forwarded = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "studio.example"}
    settings = {"root_path": "/studio/", "trusted_proxies": ["10.0.0.0/8"], "hosts": ["studio.example"]}
    with studio_app(tmp_path, "ada", **settings) as app:
        client = app.client("10.0.0.2", "https://studio.example", headers={**forwarded, "Origin": "https://studio.example"})
        answer = client.post(f"{prefix}/login", json={"name": "ada", "password": PASSWORD})
        cookie = answer.headers["set-cookie"]
        assert {"Secure", "HttpOnly", "Path=/studio", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
        session = {"Cookie": cookie.partition(";")[0]}
        assert client.get(f"{prefix}/api/v1/me", headers=session).json()["name"] == "ada"
        with socket(client, f"{prefix}{EVENTS}", **session):
            pass
        assert (
            app.client("11.0.0.2", headers={"X-Forwarded-Host": "localhost", "Host": "a.example"}).get("/health").status_code
            == 421
        )


addresses = st.ip_addresses().map(str)


@given(client=addresses, spoofed=st.lists(addresses | st.text("ab,:. ", max_size=9), max_size=3), inner=st.integers(0, 2))
def test_client_is_the_last_address_that_no_trusted_proxy_has(client: str, spoofed: list[str], inner: int) -> None:
    settings = StudioSettings(trusted_proxies=("10.0.0.0/8",))
    if settings.is_trusted_proxy(client):
        return
    chain = [*spoofed, client, *(f"10.0.0.{number}" for number in range(inner))]
    headers = [(b"x-forwarded-for", ", ".join(chain).encode())]
    scope: dict[str, Any] = {"type": "http", "path": "/", "client": ("10.9.9.9", 1), "headers": headers, "scheme": "http"}
    resolved, is_unknown = resolve_proxy(scope, settings)
    assert (resolved["client"][0], is_unknown) == (client, False)
    scope["client"] = (client, 1)
    resolved, is_unknown = resolve_proxy(scope, settings)
    assert (resolved["client"][0], is_unknown) == (client, True)


# Sizes, headers, sentences


def test_bodies_are_limited(tmp_path: Path) -> None:
    with studio_app(tmp_path, body_bytes=1_000_000) as app:
        client = app.client()
        for size, path in ((1_000_001, "/api/v1/jobs"), (100_001, "/login")):
            body = b" " * size
            json = {"Content-Type": "application/json"}
            assert refusal(client.post(path, content=body, headers=json)) == "too_large"
            # In parts, without a word of its size.
            parts = (body[start : start + 65536] for start in range(0, size, 65536))
            answer = client.post(path, content=parts, headers=json)
            assert answer.status_code == 413, answer.text


def test_json_without_pictures_is_small(tmp_path: Path) -> None:
    with studio_app(tmp_path) as app:
        body, headers = b"[" + b"1," * 1_500_000 + b"1]", {"Content-Type": "application/json"}
        for path, status in (("/api/v1/jobs", 413), ("/v1/images/generations", 413), ("/sdapi/v1/txt2img", 422)):
            key = {"Authorization": "Bearer any"}
            assert app.client().post(path, content=body, headers=headers | key).status_code == status, path
        upload = app.client().post("/api/v1/uploads", files={"picture": ("a.png", bytes(3_000_000))})
        assert (upload.status_code, refusal(upload)) == (400, "input")


def test_all_answers_have_the_security_headers(users_app: ServedStudio) -> None:
    client = users_app.client()
    for answer in (
        client.get("/health"),
        client.get("/api/v1/me"),
        client.get("/nothing"),
        client.get("/", headers={"Host": "x"}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("place", [(), ("request",), ("request", "options")])
def test_what_is_not_understood_is_not_repeated(open_app: ServedStudio, place: tuple[str, ...]) -> None:
    """Clients have sent their proxies' passwords in fields that only they know."""
    body = copy.deepcopy(JOB)
    reduce(lambda inner, name: inner[name], place, body)["auth"] = "user:secret"
    answer = open_app.client().post("/api/v1/jobs", json=body)
    assert answer.status_code in (400, 422)
    assert refusal(answer) in ("invalid", "option")
    assert "secret" not in answer.text


def test_mistake_of_ours_is_reported_without_its_words(open_app: ServedStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setattr(open_app.studio, "queue", fail)
    answer = open_app.client(raise_server_exceptions=False).get("/api/v1/queue")
    assert answer.status_code == 500
    assert answer.json() == {"error": {"message": "internal error (RuntimeError); please report it.", "code": "internal"}}


# Who asks


def test_each_door_takes_its_own_proofs(users_app: ServedStudio) -> None:
    key = users_app.accounts.add_key("bob")
    basic = base64.b64encode(f"bob:{PASSWORD}".encode()).decode()
    token = logged_in(users_app).cookies[SESSION_COOKIE]
    proofs = {
        "session": {"Cookie": f"{SESSION_COOKIE}={token}"},
        "basic": {"Authorization": f"Basic {basic}"},
        "key": {"Authorization": f"Bearer {key}"},
        "none": {},
        "wrong": {"Authorization": f"Bearer {key[:-1]}x"},
    }
    taken = {
        path: {
            proof for proof, headers in proofs.items() if users_app.client().get(path, headers=headers).status_code != 401
        }
        for path in ("/api/v1/me", "/sdapi/v1/options", "/v1/models", "/", "/api", "/api/v1x", "/v1x", "/health")
    }
    everything = {"session", "basic", "key"}
    assert taken == {
        "/api/v1/me": everything,
        "/sdapi/v1/options": everything,
        "/v1/models": {"key"},
        "/": {"session"},
        "/api": {"session"},
        "/api/v1x": {"session"},
        "/v1x": {"session"},
        "/health": {*proofs},
    }
    nobody = users_app.client()
    assert nobody.get("/sdapi/v1/options").headers["www-authenticate"].startswith("Basic ")
    assert nobody.get("/v1/models").headers["www-authenticate"] == "Bearer"
    # No browser's own window over the page.
    assert "www-authenticate" not in nobody.get("/api/v1/me", headers={"Sec-Fetch-Mode": "cors"}).headers


def test_metrics_are_for_admins_and_this_machine(users_app: ServedStudio) -> None:
    assert users_app.client().get("/metrics").status_code == 200
    assert users_app.client("10.0.0.9").get("/metrics").status_code == 401
    assert users_app.client_of("bob", address="10.0.0.9").get("/metrics").status_code == 403
    assert users_app.client_of("ada", address="10.0.0.9").get("/metrics").status_code == 200


def test_who_is_disabled_is_let_in_by_nothing(tmp_path: Path) -> None:
    with studio_app(tmp_path, "ada", "bob") as app:
        ada, session, basic = app.client_of("ada"), logged_in(app, "bob"), {"Authorization": ""}
        basic["Authorization"] = f"Basic {base64.b64encode(f'bob:{PASSWORD}'.encode()).decode()}"
        proofs = [app.client_of("bob"), session, app.client(headers=basic)]
        assert [client.get("/api/v1/me").status_code for client in proofs] == [200] * 3
        changed = ada.patch("/api/v1/users/bob", json={"disabled": True})
        assert changed.json() == {"name": "bob", "role": "user", "disabled": True}
        assert [client.get("/api/v1/me").status_code for client in proofs] == [401] * 3
        assert app.client().post("/login", json={"name": "bob", "password": PASSWORD}).status_code == 401
        ada.patch("/api/v1/users/bob", json={"disabled": False, "role": "admin"})
        assert [client.get("/api/v1/me").status_code for client in proofs] == [200, 401, 200]  # its session has ended
        assert proofs[0].get("/api/v1/users").status_code == 200


@pytest.mark.parametrize("change", [{"role": "user"}, {"disabled": True}])
def test_an_admin_who_may_log_in_is_always_left(tmp_path: Path, change: dict[str, Any]) -> None:
    with studio_app(tmp_path, "ada", "bob", "eve") as app:
        ada = app.client_of("ada")
        ada.patch("/api/v1/users/eve", json={"role": "admin", "disabled": True})
        answer = ada.patch("/api/v1/users/ada", json=change)
        assert (answer.status_code, refusal(answer)) == (409, "conflict")
        assert ada.get("/api/v1/me").json() == {"name": "ada", "role": "admin", "disabled": False}
        ada.patch("/api/v1/users/bob", json={"role": "admin"})
        assert ada.patch("/api/v1/users/ada", json=change).status_code == 200


def test_session_ends_with_logout_and_with_a_new_password(users_app: ServedStudio) -> None:
    ended, other = logged_in(users_app, "eve"), logged_in(users_app, "eve")
    assert ended.post("/logout", headers={"Origin": OWN}).status_code == 204
    assert SESSION_COOKIE not in ended.cookies
    assert other.get("/api/v1/me").status_code == 200
    users_app.accounts.set_password("eve", PASSWORD)
    assert other.get("/api/v1/me").status_code == 401


# Every route


def routes(app: ServedStudio) -> list[tuple[str, str]]:
    """(method, path) of every route that the app has."""
    found = list[tuple[str, str]]()
    for context in iter_route_contexts(app.app.routes):
        methods = getattr(context.route, "methods", None) or {"WEBSOCKET"}
        found += [(method, context.path) for method in sorted(methods) if method != "HEAD"]
    return found


def concrete(path: str, values: dict[str, str]) -> str:
    return re.sub(r"{(\w+)(:\w+)?}", lambda match: values.get(match[1], "0"), path)


def test_no_route_is_open_to_nobody(users_app: ServedStudio) -> None:
    client, seen = users_app.client(), set[str]()
    for method, path in routes(users_app):
        seen.add(path)
        if path in OPEN_PATHS or path == "/metrics":
            continue
        if method == "WEBSOCKET":
            with pytest.raises(WebSocketDisconnect), socket(client, concrete(path, {})):
                pass
            continue
        answer = client.request(method, concrete(path, {}), json={})
        assert answer.status_code == 401, (method, path, answer.text)
        assert refusal(answer) == "unauthorized"
    assert {"/api/v1/jobs", "/api/v1/users", "/api/v1/openapi.json", "/logout", EVENTS} <= seen


def test_no_route_shows_or_changes_what_is_another_users(users_app: ServedStudio) -> None:
    """Every route that names a thing of bob's: eve is told that there is none, whichever way she asks."""
    bob, eve = users_app.client_of("bob"), users_app.client_of("eve")
    job = bob.post("/api/v1/jobs", json=JOB).json()["id"]
    users_app.studio.wait(User(name="bob"), job, 10)
    picture = bob.get(f"/api/v1/jobs/{job}").json()["pictures"][0]["id"]
    key = bob.post("/api/v1/me/keys", json={}).json()["key"].split("-")[1]
    board = bob.post("/api/v1/boards", json={"name": "his"}).json()["id"]
    upload = bob.post("/api/v1/uploads", files={"picture": ("a.png", png(8))}).json()["hash"]
    values = {"job": job, "picture": picture, "name": "bob", "key": key, "board": board, "hash": upload}
    nothing = dict.fromkeys(values, "nothing") | {"hash": "0" * 64}
    before = {path: bob.get(path).json() for path in ("/api/v1/jobs", "/api/v1/pictures", "/api/v1/me/keys")}
    walked = 0
    for method, path in routes(users_app):
        names = set(re.findall(r"{(\w+)", path))
        if path.startswith(("/api/v1/models", "/v1/models")):
            continue  # which are nobody's: whoever is no admin only reads them
        if not names or not path.startswith("/api/v1") or names - set(values):
            assert not names - set(values), f"what is {names} of {path}? tell this test"
            continue
        walked += 1
        if method == "WEBSOCKET":
            with pytest.raises(WebSocketDisconnect), socket(eve, concrete(path, values)) as stream:
                stream.receive_text()
            continue
        body = {"password": PASSWORD} if "password" in path else {}
        body |= {"priority": 0} if method == "PATCH" and "/jobs" in path else {}
        asked, unknown = (
            eve.request(method, concrete(path, ids), json=body if method != "GET" else None) for ids in (values, nothing)
        )
        assert asked.status_code == 404, (method, path, asked.status_code, asked.text)
        # Nor that there is such a thing.
        told = reduce(lambda text, id: text.replace(id, "nothing"), values.values(), asked.text)
        assert (told, asked.status_code) == (unknown.text, unknown.status_code)
    assert walked >= 10
    assert before == {path: bob.get(path).json() for path in before}


def test_routes_of_admins_refuse_users(users_app: ServedStudio) -> None:
    eve = users_app.client_of("eve")
    for method, path, body in (
        ("GET", "/api/v1/users", None),
        ("POST", "/api/v1/users", {"name": "mallory", "password": PASSWORD, "role": "admin"}),
        ("PATCH", "/api/v1/users/eve", {"role": "admin"}),
        ("GET", "/api/v1/limits", None),
        ("POST", "/api/v1/queue/pause", {}),
        ("POST", "/api/v1/queue/resume", {}),
        ("POST", "/api/v1/jobs", {**JOB, "priority": 9}),
    ):
        answer = eve.request(method, path, json=body)
        assert (answer.status_code, refusal(answer)) == (403, "forbidden"), (method, path, answer.text)
