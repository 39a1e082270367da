"""A real studio for tests: store, door and routes, by themselves or behind uvicorn, and a worker without models."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from stand_in_worker import StandInWorker
from starlette.testclient import TestClient

from seesr.jobs import Worker
from seesr.studio.accounts import Accounts
from seesr.studio.app import create_app
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio

FAST_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse"
"""Of every user."""
OWN = "http://127.0.0.1:7860"
"""The studio's own origin for clients of its app."""


@dataclass
class ServedStudio:
    """A studio that runs in this process."""

    app: FastAPI
    studio: Studio
    accounts: Accounts
    address: str = ""
    """Where a server listens for it, if one does."""

    def key(self, user: str) -> str:
        """A new key of a user."""
        return self.accounts.add_key(user)

    def client(self, address: str = "127.0.0.1", base_url: str = OWN, **arguments: Any) -> TestClient:
        """A client of the app, without a server, that comes from `address` and does not say who it is."""
        return TestClient(self.app, base_url=base_url, client=(address, 50000), follow_redirects=False, **arguments)

    def client_of(self, user: str, **arguments: Any) -> TestClient:
        """As `client`, with a new key of a user."""
        return self.client(headers={"Authorization": f"Bearer {self.key(user)}"}, **arguments)


@contextmanager
def studio_app(
    data: Path, *users: str, worker: Worker | None = None, page: bool = False, **settings: Any
) -> Iterator[ServedStudio]:
    """A studio on a data folder, without a server.

    Args:
        users: their names; the first one is an admin.
        worker: None is a `StandInWorker`.
        page: whether the app has the page.
        settings: as those of `StudioSettings`.
    """
    chosen = StudioSettings(**settings)
    with Studio.open(data, chosen, {"cpu": worker or StandInWorker()}) as studio:
        accounts = Accounts(studio.store, chosen.session_hours, FAST_HASHER)
        for user in users:
            accounts.add_user(user, PASSWORD)
        yield ServedStudio(create_app(studio, accounts, chosen, page), studio, accounts)


@contextmanager
def listening(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The address at which uvicorn serves an app until the end of the block."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1, ws="websockets-sansio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@contextmanager
def serving(
    data: Path, *users: str, worker: Worker | None = None, page: bool = False, **settings: Any
) -> Iterator[ServedStudio]:
    """A studio with a server; arguments as those of `studio_app`."""
    with studio_app(data, *users, worker=worker, page=page, **settings) as served, listening(served.app) as served.address:
        yield served
