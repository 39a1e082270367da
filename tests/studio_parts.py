"""What the studio's tests share: users, requests, and a worker that waits."""

from __future__ import annotations

import threading
from typing import Any

from stand_in_worker import StandInWorker

from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest
from seesr.studio.records import User

ANN, BOB, ADMIN = User(name="ann"), User(name="bob"), User(name="root", role="admin")


def generation(prompt: str = "grey", count: int = 1) -> GenerationRequest:
    """A job of so many pictures, of a step each."""
    return GenerationRequest(options=GenerationOptions(prompt=prompt, steps=1, batch_count=count, seed=0))


class Gate(StandInWorker):
    """A worker that tells when a job has come to it, and waits with it until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self._is_open = threading.Event(), threading.Event()

    def run(self, *job: Any) -> None:
        self.arrived.set()
        self._is_open.wait(60)
        super().run(*job)

    def open(self) -> None:
        self._is_open.set()
