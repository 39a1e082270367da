"""Fixtures that many tests share: an environment of their own, the embedded model, loaded once, and real pictures."""

# ruff: noqa: E402

from __future__ import annotations

import os
import re

# Before all other imports: libraries read some of these variables then.
KEPT = "SEESR_(REFERENCE|TEST_SYSTEM|NODE_MODULES)"
"""What chooses tests."""
STRAY = re.compile(f"(?!{KEPT}$)(SEESR|HF)_.*|(FORCE|NO)_COLOR|(http|https|all|no)_proxy", re.IGNORECASE)
for name in filter(STRAY.fullmatch, [*os.environ]):
    del os.environ[name]
os.environ |= {"COLUMNS": "120", "NO_PROXY": "*"}
if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # More threads than processors would wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(processes))))

import functools
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import huggingface_hub.file_download
import pytest
from cog_server import Server, serving
from helpers import Outcome, Run, photograph, sharing
from hub import REVISION, Hub
from hypothesis import settings
from PIL import Image

from seesr import Upscaler, cli
from seesr.options import Limits
from seesr.weights.cache import Cache
from seesr.weights.resolve import resolve_weights

# `pytest --hypothesis-profile=long` tries ten times as much.
settings.register_profile("long", max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests with the marker `long` too, which take minutes each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `--long` those with that marker are left out. What is slow begins first; a file's tests run in one process."""
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("server", "training")))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees or changes what a developer has fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEESR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def upscaler() -> Upscaler:
    """The embedded model. A test that needs another engine on the same networks calls `helpers.sharing`."""
    return Upscaler.load(device="cpu", dtype="float32")


@pytest.fixture
def small_photo() -> Image.Image:
    """48x40 pixels of a photograph."""
    return photograph("chelsea.png", (150, 80, 198, 120))


@pytest.fixture
def photo_file(tmp_path: Path, small_photo: Image.Image) -> Path:
    """`small_photo` as a file."""
    path = tmp_path / "photo.png"
    small_photo.save(path)
    return path


@pytest.fixture(scope="session")
def large_photo() -> Image.Image:
    """72 latents a side when it is enlarged 4.5 times: more than a tile of 64, so that every memory plan differs."""
    return photograph("coffee.png", (200, 100, 260, 160))


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What a program's `main` leaves behind, with these arguments."""

    def run(main: Callable[[], None], *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def seesr(run_main: Run, upscaler: Upscaler) -> Run:
    """The `seesr` command in this process. What it asks for in the usual way is not loaded again.

    `load` takes the place of `Upscaler.load`.
    """

    def usual(weights: str | None = None, device: str = "auto", dtype: str = "auto", **others: Any) -> Upscaler:
        is_usual = (device in ("auto", "cpu"), dtype, any(others.values())) == (True, "auto", False)
        if is_usual and resolve_weights(weights).root == upscaler.weights.root:
            return sharing(upscaler, limits=Limits.from_environment())
        return Upscaler.load(weights, device, dtype, **others)

    def run(*arguments: object, load: Callable[..., Upscaler] = usual) -> Outcome:
        return run_main(functools.partial(cli.main, load), *arguments)

    return run


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The container's server, with small limits."""
    with serving(SEESR_INPUT_PIXELS="1000000", SEESR_INPUT_BYTES="3000000", SEESR_OUTPUT_SIDE="300") as running:
        assert running.wait_for("STARTING", "READY", "SETUP_FAILED") == "STARTING"
        assert running.post("/predictions", {"input": {"image": ""}}).status_code == 503
        running.wait_for("READY")
        running.first_worker = running.worker()
        yield running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server on this machine that speaks as much of Hugging Face's protocol as downloads need."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _list(self, repository: str) -> None:
            is_there = any(path.startswith(f"{repository}/") for path in state.files)
            content = json.dumps(state.listing(repository)).encode() if is_there else b"{}"
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _answer(self, with_body: bool) -> None:
            path = unquote(self.path).lstrip("/").replace(f"/resolve/{REVISION}", "").replace("/resolve/main", "")
            state.requests.append((self.command, path, self.headers.get("Range")))
            if path.startswith("api/models/"):
                self._list(path.removeprefix("api/models/").partition("?")[0].partition("/revision/")[0])
                return
            if path in state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status = state.status.get(path, 200 if path in state.files else 404)
            content = state.files.get(path, b"") if status == 200 else b""
            digest = hashlib.sha256(b"something else" if path in state.lie else content).hexdigest()
            start = 0
            if status == 200 and self.headers.get("Range"):
                start, status = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]), 206
            self.send_response(status)
            self.send_header("Content-Length", str(state.length.get(path, len(content)) - start))
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Repo-Commit", REVISION)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if with_body:
                stop = state.break_off.pop(path, None)
                self.wfile.write(content[start:stop])
                if stop is not None or path in state.length:
                    self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", state.address)
    monkeypatch.setattr(huggingface_hub.file_download, "_ETAG_RETRY_TIMEOUT", 1)
    yield state
    server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("SEESR_CACHE", str(tmp_path / "cache"))
    return Cache.default()
