"""What others see of a user's page: nothing, whether they are other users, pages of another origin, or wait at the door."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from job_requests import generation
from page_browser import WAIT, Tab, log_in, open_page, ready
from playwright.sync_api import Browser, expect
from studio_server import PASSWORD, ServedStudio

from seesr.studio.accounts import TRIES_OF_ADDRESS
from seesr.studio.records import User

pytestmark = pytest.mark.system
BEN, CLEO = User(name="ben"), User(name="cleo")
LISTEN = """() => {
    window.heard = [];
    new EventSource("/api/v1/events").onmessage = event => heard.push(JSON.parse(event.data).job);
}"""
ASK = """urls => Promise.all(urls.map(async url => (await fetch(url)).status))"""
HOSTILE = Path(__file__).with_name("hostile.html")
"""Tries what a page elsewhere can have a browser do, and notes in `told` how each ended."""


@pytest.fixture
def hostile() -> Iterator[tuple[ThreadingHTTPServer, list[str]]]:
    """A server of one page, which stands as the last of the list."""
    pages = list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = pages[-1].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, pages
    server.shutdown()
    server.server_close()


def asked_for(tab: Tab) -> list[str]:
    """Paths of the API that a page asks for from now on."""
    paths = list[str]()
    tab.page.on("request", lambda request: paths.append(request.url.removeprefix(tab.address)))
    return paths


def test_two_users_see_nothing_of_each_other(
    browser: Browser, shared: ServedStudio, photos: list[Path], gradio_folder: Path
) -> None:
    tabs = {name: log_in(browser, shared, name) for name in ("ben", "cleo")}
    paths = {name: asked_for(tab) for name, tab in tabs.items()}
    pictures, jobs = dict[str, str](), dict[str, set[str]]()
    for name, tab in tabs.items():
        tab.page.evaluate(LISTEN)
        photo = photos[name == "cleo"]
        tab.page.locator("seesr-drop[tab=upscale] input").set_input_files(photo)
        expect(tab.page.locator("seesr-drop[tab=upscale] figure")).to_have_count(1, timeout=WAIT)
        tab.field("upscale-prompt").fill(f"a secret of {name}")
    for tab in tabs.values():  # at the same time
        tab.page.get_by_role("button", name="Upscale", exact=True).click()
    for name, tab in tabs.items():
        pictures[name] = tab.wait_for_picture("upscale")
        jobs[name] = {job.id for job in shared.studio.jobs(User(name=name))}
        tab.page.evaluate("id => fetch(`/api/v1/pictures/${id}/thumbnail`)", pictures[name])
        tab.page.get_by_role("tab", name="Queue").click()
        expect(tab.page.locator("seesr-queue li").first).to_contain_text(f"a secret of {name}", timeout=WAIT)
    asked = {name: [*dict.fromkeys(paths[name])] for name in paths}
    for name, other in (("ben", "cleo"), ("cleo", "ben")):
        tab, kept = tabs[other], shared.studio.picture_content(User(name=name), pictures[name])[1]
        private = [path for path in asked[name] if any(word in path for word in ("/pictures/", "/uploads/", "/jobs/"))]
        private += [f"/api/v1/jobs/{job}{more}" for job in jobs[name] for more in ("", "/events")]
        assert any(path.endswith("/file") for path in private)
        assert any("/uploads/" in path for path in private)
        assert tab.page.evaluate(ASK, private) == [404] * len(private)
        files = [kept, kept.parent, shared.studio.files.root / "studio.db", gradio_folder]
        routes = [f"/ui/en/gradio_api/{route}{path}" for path in files for route in ("file=", "file/", "stream/")]
        assert {*tab.page.evaluate(ASK, routes)} == {404}
        heard = {*tab.page.evaluate("heard")}
        assert heard
        assert heard <= jobs[other]
        assert f"a secret of {name}" not in tab.page.content()
        assert f"a secret of {name}" not in f"{shared.studio.setting(User(name=other), 'page.upscale')}"
        tab.page.reload()
        ready(tab)
        expect(tab.field("upscale-prompt")).to_have_value(f"a secret of {other}")
    assert [path for path in gradio_folder.rglob("*") if path.is_file()] == []
    # Its own script met nothing that it did not expect; the 404s are those that this test asked for.
    faults = [fault for tab in tabs.values() for fault in tab.faults if "404 (Not Found)" not in fault]
    assert faults == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same site", "cross site"])
def test_a_page_of_another_origin_starts_nothing_and_reads_nothing(
    browser: Browser, shared: ServedStudio, hostile: tuple[ThreadingHTTPServer, list[str]], host: str
) -> None:
    done = shared.studio.submit(BEN, generation("mine"))
    picture = shared.studio.wait(BEN, done.id, 30).pictures[0].id
    before = [job.id for job in shared.studio.jobs(BEN)]
    tab = log_in(browser, shared, "ben")
    server, pages = hostile
    pages.append(HOSTILE.read_text().replace("STUDIO", f'"{shared.address}"').replace("PICTURE", picture))
    page = tab.page.context.new_page()
    page.goto(f"http://{host}:{server.server_port}/")
    page.wait_for_function("window.told", timeout=WAIT)
    told: dict[str, str] = page.evaluate("told")
    # A browser tells nothing of what it sends blindly, and of frames only that they ended.
    assert {how for name, how in told.items() if not name.startswith(("form", "frame", "blind"))} == {"refused"}
    assert len(told) >= 20
    for frame in page.frames[1:]:
        text = "" if frame.url.startswith("chrome-error") else frame.locator("body").inner_text(timeout=WAIT)
        assert "Upscale" not in text
    assert [job.id for job in shared.studio.jobs(BEN)] == before
    assert not shared.studio.queue().paused
    assert shared.studio.picture(BEN, picture).id == picture
    assert tab.page.evaluate("fetch('/api/v1/me').then(answer => answer.json())")["name"] == "ben"
    assert page.evaluate(ASK.replace("fetch(url)", "fetch(url, {mode: 'no-cors'})"), []) == []


def test_who_is_not_let_in_sees_a_sentence(browser: Browser, shared: ServedStudio) -> None:
    tab = open_page(browser, shared, extra_http_headers={"X-Forwarded-For": "203.0.113.7"})
    expect(tab.page).to_have_url(f"{shared.address}/login")
    told = tab.page.get_by_role("alert")
    tab.page.get_by_label("Name").fill("anna")  # whose password nobody gave right in the last minutes
    for _ in range(TRIES_OF_ADDRESS):
        tab.page.get_by_label("Password").fill("wrong wrong")
        with tab.page.expect_response("**/login"):
            tab.page.get_by_role("button", name="Log in").click()
        expect(told).to_have_text("The name or the password is wrong.")
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.get_by_role("button", name="Log in").click()
    expect(told).to_contain_text("Too many wrong passwords; try again in ")
    expect(tab.page).to_have_url(f"{shared.address}/login")
    assert tab.page.context.cookies() == []
    assert [fault for fault in tab.faults if "status of 401" not in fault and "status of 429" not in fault] == []
    log_in(browser, shared, "ben", extra_http_headers={"X-Forwarded-For": "203.0.113.8"})


def test_logging_out_ends_it_everywhere_in_the_browser(browser: Browser, shared: ServedStudio) -> None:
    tab = log_in(browser, shared, "cleo")
    other = Tab(tab.page.context.new_page(), shared.address)
    other.page.goto(f"{shared.address}/")
    ready(other)
    other.open("Queue")
    cookies: list[Any] = tab.page.context.cookies()
    tab.page.get_by_role("button", name="Log out").click()
    expect(tab.page).to_have_url(f"{shared.address}/login", timeout=WAIT)
    expect(other.page).to_have_url(f"{shared.address}/login#tab=queue", timeout=WAIT)
    tab.page.context.add_cookies(cookies)  # a stolen one is of no use either
    tab.page.goto(f"{shared.address}/")
    expect(tab.page).to_have_url(f"{shared.address}/login")
    assert tab.faults == []
