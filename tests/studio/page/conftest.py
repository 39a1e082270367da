"""Chromium for the tests of the page, and studios that it opens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import photograph
from page_browser import TABS_WITH_FIELDS, USERS
from playwright.sync_api import Browser, sync_playwright
from stand_in_worker import StandInWorker
from studio_server import ServedStudio, serving
from system_programs import need_program

from seesr.job_runner import JobRunner, WorkerSettings
from seesr.studio.records import LOCAL, User


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium, without a window; while it is open, an event loop runs in which other files' tests could start none."""
    path = need_program("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The same, without any page that is open."""
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture(scope="session", autouse=True)
def gradio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Gradio would keep files."""
    folder = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """A studio on the embedded models."""
    worker = JobRunner(WorkerSettings(device="cpu", dtype="float32"))
    with serving(tmp_path_factory.mktemp("real"), worker=worker, page=True) as served:
        yield served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    """A studio of several users, whose worker takes 0.3 s a step. A test may come from elsewhere by X-Forwarded-For."""
    data, proxies = tmp_path_factory.mktemp("shared"), ("127.0.0.1",)
    with serving(data, *USERS, worker=StandInWorker(0.3), page=True, trusted_proxies=proxies) as served:
        yield served


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for name, box in {"cat": (150, 80, 198, 120), "eye": (100, 60, 140, 108)}.items():
        photograph("chelsea.png", box).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(autouse=True)
def _fresh_fields(request: pytest.FixtureRequest) -> None:
    """Each test finds the fields as a new user does."""
    for name in {"real", "shared"} & {*request.fixturenames}:
        served: ServedStudio = request.getfixturevalue(name)
        for user, tab in itertools.product((LOCAL, *USERS), TABS_WITH_FIELDS):
            served.studio.set_setting(User(name=user), f"page.{tab}", None)
