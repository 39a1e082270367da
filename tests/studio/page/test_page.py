"""The page in a real browser: each tab's main way from click to file, and what may go wrong in between."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers import photograph
from job_requests import generation
from page_browser import PHONE, Tab, log_in, open_page, ready
from PIL import Image
from playwright.sync_api import Browser, Locator, expect
from studio_server import PASSWORD, ServedStudio

from seesr.jobs import UpscaleRequest
from seesr.options import Options
from seesr.studio.records import LOCAL, User

pytestmark = pytest.mark.system
ME = User(name=LOCAL, role="admin")


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def file(served: ServedStudio, picture: str) -> bytes:
    return served.studio.picture_content(ME, picture)[1].read_bytes()


def tab_to(tab: Tab, place: Locator) -> None:
    """Goes to an element as a keyboard does, from where one is."""
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        if place.count() and place.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"{place} is not reached by the key Tab")


def test_the_keyboard_alone_makes_the_picture_that_the_api_makes(browser: Browser, real: ServedStudio) -> None:
    tab = ready(open_page(browser, real))
    visible = tab.page.locator(":visible")
    tab_to(tab, tab.page.get_by_role("tab", name="Text to image"))
    tab.page.keyboard.press("Enter")
    for field, value in {"prompt": "a red apple", "steps": "2", "seed": "7"}.items():
        tab_to(tab, tab.field(f"text-{field}"))
        tab.page.keyboard.type(value)
    tab_to(tab, tab.page.get_by_role("button", name="Generate").and_(visible))
    tab.page.keyboard.press("Enter")
    picture = tab.wait_for_picture("text")
    tab_to(tab, tab.page.get_by_role("link", name="Download", exact=True).and_(visible))
    with tab.page.expect_download() as download:
        tab.page.keyboard.press("Enter")
    record = real.studio.picture(ME, picture)
    request = real.studio.job(ME, record.job or "").request
    job = real.studio.wait(ME, real.studio.submit(ME, request).id, 60)
    assert (record.settings["seed"], record.settings["prompt"]) == (7, "a red apple")
    assert Path(download.value.path()).read_bytes() == file(real, picture)
    assert (pixels(file(real, picture)) == pixels(file(real, job.pictures[0].id))).all()
    assert tab.faults == []


def test_many_pictures_are_enlarged_compared_and_downloaded(
    browser: Browser, real: ServedStudio, photos: list[Path], tmp_path: Path
) -> None:
    cup = tmp_path / "cup.png"
    photograph("coffee.png").resize((150, 100)).save(cup)
    tab = ready(open_page(browser, real))
    tab.page.locator("seesr-drop[tab=upscale] input").set_input_files([photos[0], cup])
    expect(tab.page.locator("seesr-drop[tab=upscale] figure")).to_have_count(2)
    tab.page.get_by_role("spinbutton", name="Scale", exact=True).fill("2")
    tab.page.get_by_role("button", name="Upscale", exact=True).click()
    tab.wait_for_picture("upscale")
    view = tab.page.locator("seesr-view[tab=upscale]")
    expect(view.get_by_role("link", name="Download all")).to_be_visible(timeout=60_000)
    expect(view.locator(".strip button")).to_have_count(2)
    view.locator(".strip button").last.click()
    picture = tab.wait_for_picture("upscale")
    expect(view.get_by_label("Before and after")).to_be_visible()
    expect(view.locator(".facts")).to_contain_text("Tags: ")
    with tab.page.expect_download() as one:
        view.get_by_role("link", name="Download", exact=True).click()
    content = Path(one.value.path()).read_bytes()
    assert content == file(real, picture)
    request = UpscaleRequest.model_validate(
        real.studio.job(ME, real.studio.picture(ME, picture).job or "").request.model_dump()
    )
    assert request.options == Options(scale=2)
    assert pixels(content).shape[1] == 2 * Image.open(io.BytesIO(real.studio.uploaded(ME, request.image)[0])).width
    with tab.page.expect_download() as everything:
        view.get_by_role("link", name="Download all").click()
    with zipfile.ZipFile(everything.value.path()) as archive:
        assert len(archive.namelist()) == 2
    assert tab.faults == []


@pytest.mark.parametrize("by_finger", [False, True])
def test_only_what_is_painted_over_changes(
    browser: Browser, real: ServedStudio, photos: list[Path], by_finger: bool
) -> None:
    size: dict[str, Any] = {"size": PHONE, "has_touch": True} if by_finger else {}
    tab = ready(open_page(browser, real, **size))
    tab.open("Inpaint")
    tab.page.locator("seesr-drop[tab=inpaint] .place input").set_input_files(photos[by_finger])
    canvas = tab.page.locator("seesr-drop[tab=inpaint] canvas")
    canvas.scroll_into_view_if_needed()
    tab.page.wait_for_function("document.querySelector('seesr-drop[tab=inpaint] canvas').width < 60")
    box = canvas.bounding_box() or {}
    start, end = (box["x"] + 4, box["y"] + box["height"] / 4), (box["x"] + box["width"] - 4, box["y"] + box["height"] / 4)
    if by_finger:
        touch = tab.page.context.new_cdp_session(tab.page)
        for kind, points in {"touchStart": [start], "touchMove": [end], "touchEnd": []}.items():
            places = [{"x": x, "y": y} for x, y in points]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    else:
        for _ in range(2):  # the second stroke is taken back
            tab.page.mouse.move(*start)
            tab.page.mouse.down()
            tab.page.mouse.move(*end, steps=5)
            tab.page.mouse.up()
            start, end = (start[0], box["y"] + box["height"] * 0.9), (end[0], box["y"] + box["height"] * 0.9)
        tab.page.get_by_role("button", name="Undo").click()
    tab.field("inpaint-prompt").fill("a blue sky")
    tab.field("inpaint-steps").fill("2")
    tab.page.get_by_role("button", name="Generate").and_(tab.page.locator(":visible")).click()
    picture = tab.wait_for_picture("inpaint")
    request: Any = real.studio.job(ME, real.studio.picture(ME, picture).job or "").request
    mask = pixels(real.studio.uploaded(ME, request.mask)[0])
    before, after = pixels(photos[by_finger].read_bytes()), pixels(file(real, picture))
    height = mask.shape[0]
    assert set(np.unique(mask)) >= {0, 255}
    assert (mask[height // 4, 4:-4] == 255).all()
    assert (mask[height // 2 :] == 0).all()
    assert (before[height * 3 // 4 :] == after[height * 3 // 4 :]).all()
    assert (before != after).any()
    assert tab.faults == []


def test_a_closed_tab_loses_nothing_and_escape_cancels(browser: Browser, shared: ServedStudio) -> None:
    tab = log_in(browser, shared, "anna")
    anna, page = User(name="anna", role="admin"), tab.page
    tab.open("Text to image")
    tab.field("text-prompt").fill("a slow boat")
    tab.field("text-width").fill("256")
    page.get_by_role("button", name="Generate").click()
    view = page.locator("seesr-view[tab=text]")
    expect(view.locator(".status")).to_contain_text("step 2 of 4", timeout=20_000)
    expect(view.locator(".preview")).to_be_visible()
    page.close()
    again = Tab(page.context.new_page(), shared.address)
    again.page.goto(f"{shared.address}/")
    ready(again)
    again.open("Text to image")
    expect(again.field("text-prompt")).to_have_value("a slow boat")
    expect(again.field("text-width")).to_have_value("256")
    again.wait_for_picture("text")
    again.page.keyboard.press("Control+Enter")
    expect(again.page.locator("seesr-view[tab=text] .status")).to_contain_text("step", timeout=20_000)
    again.page.keyboard.press("Escape")
    expect(again.page.locator("seesr-view[tab=text] .status")).to_have_text("cancelled", timeout=20_000)
    assert [job.state for job in shared.studio.jobs(anna)][:2] == ["cancelled", "done"]
    again.page.get_by_role("button", name="Advanced").click()
    again.page.get_by_role("button", name="Reset all fields").click()
    expect(again.field("text-prompt")).to_have_value("")
    assert not shared.studio.setting(anna, "page.text")


def test_a_refused_value_is_an_error_once_and_marked(browser: Browser, shared: ServedStudio) -> None:
    tab = log_in(browser, shared, "anna")
    before = len(shared.studio.jobs(User(name="anna")))
    tab.open("Text to image")
    tab.field("text-steps").fill("500")
    tab.page.keyboard.press("Control+Enter")
    expect(tab.page.locator("#text-error [role=alert]")).to_have_text(
        "Steps is 500: input should be less than or equal to 150."
    )
    expect(tab.field("text-steps")).to_have_attribute("aria-invalid", "true")
    assert len(shared.studio.jobs(User(name="anna"))) == before
    tab.field("text-steps").fill("3")
    tab.page.keyboard.press("Control+Enter")
    tab.wait_for_picture("text")
    expect(tab.field("text-steps")).not_to_have_attribute("aria-invalid", "true")
    assert tab.faults == []


def test_the_queue_shows_ones_own_jobs_in_their_order(browser: Browser, shared: ServedStudio) -> None:
    admin = User(name="anna", role="admin")
    shared.studio.pause(admin, "the test pauses it")
    jobs = [shared.studio.submit(admin, generation(prompt)).id for prompt in ("first", "second", "third")]
    anna, ben = log_in(browser, shared, "anna"), log_in(browser, shared, "ben")
    anna.open("Queue")
    rows = anna.page.locator("seesr-queue li")
    expect(rows.nth(2)).to_contain_text("third")
    rows.nth(2).get_by_role("button", name="Run first").click()
    expect(rows.nth(0)).to_contain_text("third")
    rows.filter(has_text="second").get_by_role("button", name="Cancel").click()
    expect(rows.filter(has_text="second").first).to_contain_text("cancelled")
    ben.open("Queue")
    expect(ben.page.locator("seesr-queue [role=status]")).to_have_text("The queue is paused: the test pauses it")
    expect(ben.page.locator("seesr-queue li")).to_have_text("None of your jobs is here yet.")
    expect(ben.page.get_by_role("button", name="Resume the queue")).to_have_count(0)
    anna.page.get_by_role("button", name="Resume the queue").click()
    expect(rows.filter(has_text="first").first).to_contain_text("done", timeout=20_000)
    first, second, third = (shared.studio.job(admin, job) for job in jobs)
    assert (first.state, second.state, third.state) == ("done", "cancelled", "done")
    assert first.started > third.started  # pyright: ignore[reportOptionalOperand] both have begun
    assert anna.faults == []
    assert ben.faults == []


def test_gradio_keeps_no_file_and_takes_nothing_from_elsewhere(shared: ServedStudio) -> None:
    with httpx.Client(base_url=shared.address) as client:
        own = {"origin": shared.address}
        client.post("/login", json={"name": "ben", "password": PASSWORD}, headers=own).raise_for_status()
        base = "/ui/en/gradio_api"
        upload = client.post(f"{base}/upload", files={"files": ("a.png", b"x")}, headers=own)
        assert upload.status_code == 404
        assert client.get(f"{base}/file=/etc/hostname").status_code == 404
        assert client.get(f"{base}/file/tmp/x").status_code == 404
        body = {"data": [], "fn_index": 0, "session_hash": "x"}
        assert client.post(f"{base}/run/predict", json=body, headers={"origin": "https://evil.example"}).status_code == 403
        page = client.get("/ui/en/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert client.get("/ui/en/gradio_api/info").json()["named_endpoints"] == {}
    with httpx.Client(base_url=shared.address) as stranger:
        assert stranger.get("/ui/en/").status_code == 401
        assert stranger.get("/page/page.js").status_code == 401
        assert stranger.get("/ui/en/", headers={"sec-fetch-mode": "navigate"}).headers["location"] == "/login"


def test_all_tabs_together_weigh_little_and_speak_the_browsers_language(browser: Browser, real: ServedStudio) -> None:
    context = browser.new_context(locale="es-ES")
    tab, sizes = Tab(context.new_page(), real.address), list[int]()
    page = tab.page
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.goto(f"{real.address}/")
    page.get_by_role("button", name="Ampliar", exact=True).wait_for(timeout=60_000)
    for name in tab.tabs():
        tab.open(name)
        page.wait_for_load_state("load")
        page.wait_for_timeout(1000)
    assert page.locator("html").get_attribute("lang") == "es"
    assert page.url.endswith("/ui/es/#tab=settings")
    assert 100_000 < sum(sizes) < 2_000_000
