"""The studio's app with users, over a worker without models, for tests of what lies behind HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from fastapi import FastAPI
from stand_in_worker import StandInWorker
from starlette.testclient import TestClient

from seesr.studio.accounts import Accounts
from seesr.studio.app import create_app
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio

PASSWORD = "correct horse"
FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
OWN = "http://127.0.0.1:7860"


@dataclass
class StudioApp:
    """A studio that runs in this process."""

    app: FastAPI
    studio: Studio
    accounts: Accounts

    def client(self, address: str = "127.0.0.1", base_url: str = OWN, **arguments: Any) -> TestClient:
        """A client at an address, without any proof of who it is."""
        return TestClient(self.app, base_url=base_url, client=(address, 50000), follow_redirects=False, **arguments)

    def client_of(self, name: str, **arguments: Any) -> TestClient:
        """A client that sends a user's key."""
        return self.client(headers={"Authorization": f"Bearer {self.accounts.add_key(name)}"}, **arguments)


@contextmanager
def studio_app(data: Path, *users: str, **settings: Any) -> Iterator[StudioApp]:
    """The app over a new data folder; the first of the users is an admin, and all have the same password."""
    chosen = StudioSettings(**settings)
    with Studio.open(data, chosen, {"cpu": StandInWorker()}) as studio:
        accounts = Accounts(studio.store, chosen.session_hours, FAST)
        for name in users:
            accounts.add_user(name, PASSWORD)
        yield StudioApp(create_app(studio, accounts, chosen), studio, accounts)
