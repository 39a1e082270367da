"""What a user finds again: after a reload, on another device, and while the server is killed and started anew."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from helpers import TESTS
from page_browser import PHONE, WAIT, Tab, log_in, open_page, ready
from playwright.sync_api import Browser, expect
from studio_server import ServedStudio

from seesr.studio.records import User

pytestmark = pytest.mark.system
PROGRAM = """
import sys, threading
from pathlib import Path
from stand_in_worker import StandInWorker
from studio_server import listening, studio_app
folder, port = sys.argv[1:]
with studio_app(Path(folder), worker=StandInWorker(0.3), page=True) as served, listening(served.app, int(port)):
    print("ready", flush=True)
    threading.Event().wait()
"""


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    """A studio in a process of its own, once it answers."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def fields(tab: Tab) -> dict[str, str]:
    """What two tabs hold."""
    tab.open("Upscale")
    values = {name: tab.field(f"upscale-{name}").input_value() for name in ("scale", "prompt")}
    figure = tab.page.locator("seesr-drop[tab=upscale] figure img")
    expect(figure).to_have_count(1, timeout=WAIT)
    values["input"] = figure.get_attribute("src") or ""
    values["enlarged"] = tab.wait_for_picture("upscale")
    tab.open("Text to image")
    values |= {name: tab.field(f"text-{name}").input_value() for name in ("prompt", "steps", "width", "seed")}
    return values | {"made": tab.wait_for_picture("text")}


def test_a_reload_and_another_device_find_the_same(browser: Browser, shared: ServedStudio, photos: list[Path]) -> None:
    desk = log_in(browser, shared, "ben")
    desk.page.locator("seesr-drop[tab=upscale] input").set_input_files(photos[0])
    expect(desk.page.locator("seesr-drop[tab=upscale] figure")).to_have_count(1, timeout=WAIT)
    desk.field("upscale-scale").fill("3")
    desk.field("upscale-prompt").fill("a cat")
    desk.page.keyboard.press("Control+Enter")
    desk.open("Text to image")
    for name, value in {"prompt": "a boat", "steps": "3", "width": "256", "seed": "12"}.items():
        desk.field(f"text-{name}").fill(value)
    desk.page.keyboard.press("Control+Enter")
    desk.wait_for_picture("text")
    left = fields(desk)
    assert (left["scale"], left["steps"], left["width"], left["seed"]) == ("3", "3", "256", "12")
    desk.page.reload()
    assert fields(ready(desk)) == left
    phone = log_in(browser, shared, "ben", size=PHONE, has_touch=True)
    assert fields(phone) == left
    newest = [picture.id for picture in shared.studio.pictures(User(name="ben"))]
    assert {left["enlarged"], left["made"]} <= {*newest}
    assert desk.faults == phone.faults == []


def test_a_page_gets_over_the_servers_death_by_itself(browser: Browser, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = start(tmp_path, port)
    try:
        tab = ready(open_page(browser, address))
        page, view = tab.page, tab.page.locator("seesr-view[tab=text]")
        page.evaluate("window.isTheSamePage = true")
        tab.open("Text to image")
        tab.field("text-prompt").fill("a slow boat")
        page.keyboard.press("Control+Enter")
        expect(view.locator(".status")).to_contain_text("step 1 of 4", timeout=WAIT)
        kill(process)
        told = page.get_by_text("The server does not answer; trying again.")
        expect(told).to_be_visible(timeout=WAIT)
        expect(told).to_be_in_viewport()
        page.keyboard.press("Control+Enter")  # is sent when the server is back
        tab.field("text-prompt").fill("a boat")
        process = start(tmp_path, port)
        expect(told).to_have_count(0, timeout=WAIT)
        picture = tab.wait_for_picture("text")
        with httpx.Client(base_url=f"{address}/api/v1/") as client:
            assert [job["state"] for job in client.get("jobs").json()["jobs"]][1:] == ["interrupted"]
            expect(tab.field("text-prompt")).to_have_value("a boat")
            page.keyboard.press("Control+Enter")
            other = tab.wait_for_picture("text", besides=picture)
            jobs = client.get("jobs").json()["jobs"]
        made = [(job["request"]["options"]["prompt"], [one["id"] for one in job["pictures"]]) for job in jobs]
        assert made == [("a boat", [other]), ("a slow boat", [picture]), ("a slow boat", [])]
        assert page.evaluate("window.isTheSamePage")
        # That requests fail while nobody answers is what the browser itself notes.
        assert [fault for fault in tab.faults if "ERR_" not in fault] == []
    finally:
        kill(process)
