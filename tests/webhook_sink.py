"""A server that webhooks are sent to, and that answers as a test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Message:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes
    moment: float

    @property
    def job(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Sink:
    """Answers with the statuses one after the other, and then with the last one."""

    statuses: Sequence[int] = (200,)
    location: str = ""
    """Where a status of a redirect leads."""
    hold: threading.Event | None = None
    """Nothing is answered before it is set."""
    dribble: float | None = None
    """Seconds between the bytes of an answer that never ends."""
    messages: list[Message] = field(default_factory=list)
    address: str = ""

    def wait(self, count: int, seconds: float = 60.0) -> list[Message]:
        """The messages, as soon as there are so many."""
        end = time.monotonic() + seconds
        while len(self.messages) < count:
            assert time.monotonic() < end, f"{len(self.messages)} of {count} messages came"
            time.sleep(0.01)
        return self.messages

    def wait_for_end(self, seconds: float = 60.0) -> Message:
        """The first message that tells of a job's end."""
        end = time.monotonic() + seconds
        while True:
            for message in list(self.messages):
                if message.job["status"] in ("succeeded", "failed", "canceled"):
                    return message
            assert time.monotonic() < end, "no end was told"
            time.sleep(0.01)

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[Sink]:
        """Listens on this machine until the end of the block."""
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = sink.statuses[min(len(sink.messages), len(sink.statuses) - 1)]
                sink.messages.append(Message(self.path, headers, body, time.monotonic()))
                if sink.hold is not None:
                    sink.hold.wait()
                if sink.dribble is not None:
                    self._dribble(sink.dribble)
                    return
                self.send_response(status)
                if sink.location:
                    self.send_header("Location", sink.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def _dribble(self, seconds: float) -> None:
                try:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
                    while True:
                        self.wfile.write(b"x")
                        time.sleep(seconds)
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            server.daemon_threads = True
            sink.address = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            try:
                yield sink
            finally:
                if sink.hold is not None:
                    sink.hold.set()
                server.shutdown()
                thread.join()
