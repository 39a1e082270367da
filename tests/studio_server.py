"""A real studio for tests: store, door and routes behind uvicorn, in a thread, with a worker that draws grey pictures."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from stand_in_worker import StandInWorker

from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest
from seesr.studio.accounts import Accounts
from seesr.studio.app import create_app
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio

FAST_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORDS = {"anna": "anna's password", "ben": "ben's password"}
"""Of the users where there are any: anna, who is admin, and ben."""


@dataclass
class ServedStudio:
    """A studio that runs."""

    app: FastAPI
    studio: Studio
    accounts: Accounts
    worker: StandInWorker
    address: str = ""

    def key(self, user: str) -> str:
        """A new key of a user."""
        return self.accounts.add_key(user)


def words(prompt: str, **options: object) -> GenerationRequest:
    """A request for a picture."""
    return GenerationRequest(options=GenerationOptions(**{"prompt": prompt, **options}))


@contextmanager
def open_studio(
    data: Path, users: bool = False, seconds: float = 0.0, settings: StudioSettings | None = None
) -> Iterator[ServedStudio]:
    """A studio without a server.

    Args:
        users: whether there are anna and ben.
        seconds: of a step of the worker.
    """
    settings, worker = settings or StudioSettings(), StandInWorker(seconds)
    with Studio.open(data, settings, {"cpu": worker}) as studio:
        accounts = Accounts(studio.store, hasher=FAST_HASHER)
        for name, password in PASSWORDS.items() if users else ():
            accounts.add_user(name, password)
        yield ServedStudio(create_app(studio, accounts, settings), studio, accounts, worker)


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
def serving(data: Path, users: bool = False, seconds: float = 0.0) -> Iterator[ServedStudio]:
    """A studio with a server; arguments as those of `open_studio`."""
    with open_studio(data, users, seconds) as served, listening(served.app) as served.address:
        yield served
