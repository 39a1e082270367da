"""The real Cog server in a process of its own, as a container starts it, and pictures to send to it."""

from __future__ import annotations

import base64
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from helpers import ROOT
from PIL import Image

PREDICTOR = "predict.py:Predictor"
START_SECONDS = 240


@dataclass
class Server:
    """A running server and what it wrote."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    temporary: Path
    """Where its temporary files go."""
    first_worker: int = 0
    """Process number of the worker that it began with, where a test wants to see that it is still there."""
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.address + path, timeout=30)

    def post(self, path: str, body: object = None, **given: Any) -> requests.Response:
        return self.session.post(self.address + path, json=body, timeout=300, **given)

    def put(self, path: str, body: object, **given: Any) -> requests.Response:
        return self.session.put(self.address + path, json=body, timeout=300, **given)

    def predict(self, **inputs: object) -> dict[str, Any]:
        """A prediction's record, which a good request has whether it failed or not."""
        end = time.monotonic() + 5
        while (answer := self.post("/predictions", {"input": inputs})).status_code == 409 and time.monotonic() < end:
            # The server answers a moment before it is ready for the next one.
            time.sleep(0.02)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def health(self) -> dict[str, Any]:
        return self.get("/health-check").json()

    def wait_for(self, *states: str, seconds: float = START_SECONDS) -> str:
        """The first of `states` that the server is in."""
        end = time.monotonic() + seconds
        while True:
            try:
                state = self.health()["status"]
            except requests.ConnectionError:
                state = "unreachable"
            if state in states:
                return state
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"{state} instead of {states}: {self.log.read_text()}"
            time.sleep(0.05)

    def files(self) -> list[Path]:
        """Its temporary files, without Cog's own sockets and empty folders."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def loses_its_files(self) -> bool:
        """Whether none of them is left some moments after it ended."""
        end = time.monotonic() + 10
        while self.files() and time.monotonic() < end:
            time.sleep(0.02)
        return not self.files()

    def worker(self) -> int:
        """Process number of the worker, which runs the model."""
        (worker,) = psutil.Process(self.process.pid).children()
        return worker.pid


@contextmanager
def serving(predictor: str = PREDICTOR, largest_file: int | None = None, **environment: str) -> Iterator[Server]:
    """A server with this environment; no file that it writes may be longer than `largest_file` bytes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="seesr-test-") as folder:
        temporary = Path(folder) / "tmp"
        temporary.mkdir()
        # Cog starts its worker as `python`: this environment's must come first.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"COG_PREDICT_TYPE_STUB": predictor, "PORT": str(port), "PATH": path, "TMPDIR": str(temporary)}
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
                cwd=ROOT,
                env=os.environ | own | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: _prepare(largest_file),
            )
        server = Server(process, f"http://127.0.0.1:{port}", log, temporary)
        try:
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _prepare(largest_file: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


def data_url(content: bytes | Image.Image, **saving: Any) -> str:
    """What a client sends: a picture, or bytes that claim to be one."""
    if isinstance(content, Image.Image):
        buffer = io.BytesIO()
        content.save(buffer, **({"format": "PNG"} | saving))
        content = buffer.getvalue()
    return "data:image/png;base64," + base64.b64encode(content).decode()


def picture_of(record: dict[str, Any]) -> Image.Image:
    """The picture that a succeeded prediction gave."""
    assert record["status"] == "succeeded", {key: record.get(key) for key in ("status", "error", "logs")}
    return Image.open(io.BytesIO(content_of(record)))


def content_of(record: dict[str, Any]) -> bytes:
    return base64.b64decode(record["output"].partition("base64,")[2])
