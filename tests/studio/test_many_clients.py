"""Fifty clients that poll while one worker runs their jobs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from job_requests import generation
from sqlalchemy import event as sql_event
from stand_in_worker import StandInWorker
from studio_server import ServedStudio, serving

from seesr.client import AsyncClient

CLIENTS = 50
QUERIES = 10
"""Of a poll: who asks, the job, its pictures, its place in the queue; and the beginnings of transactions."""


def test_fifty_clients_poll_while_a_worker_runs(tmp_path: Path) -> None:
    """All jobs are made, the two users in turns, and a poll asks little of the store however many there are."""
    worker = StandInWorker()
    with serving(tmp_path, "anna", "ben", worker=worker) as served:
        queries = list[str]()

        def count(*args: Any) -> None:
            if not threading.current_thread().name.startswith("dispatcher"):
                queries.append(args[2])

        both = [AsyncClient(served.address, key=served.key(user)) for user in ("anna", "ben")]
        clients = [client for client in both for _ in range(CLIENTS // 2)]

        async def run() -> tuple[list[str], int]:
            jobs = await submit(served, clients)
            sql_event.listen(served.studio.store._engine, "before_cursor_execute", count)
            return jobs, await poll(served, clients, jobs)

        jobs, polls = asyncio.run(run())
        assert len(queries) <= QUERIES * polls
        users = [served.studio.store.job(job).user for job in worker.ran]
    assert sorted(jobs) == sorted(worker.ran)
    assert {tuple(users[at : at + 2]) for at in range(0, CLIENTS, 2)} <= {("anna", "ben"), ("ben", "anna")}


async def submit(served: ServedStudio, clients: list[AsyncClient]) -> list[str]:
    """A job of each client's, none of which is begun yet."""
    served.studio.store.set_paused("until all have asked")
    return [(await client.submit(generation(str(number)))).id for number, client in enumerate(clients)]


async def poll(served: ServedStudio, clients: list[AsyncClient], jobs: list[str]) -> int:
    """Lets the queue run, and each client ask until its job has ended; the number of questions."""
    served.studio.store.set_paused(None)
    served.studio.dispatcher.wake()
    polls = 0

    async def ask(client: AsyncClient, job: str) -> None:
        nonlocal polls
        while (await client.job(job)).ended is None:
            polls += 1
            await asyncio.sleep(0.25)
        polls += 1

    await asyncio.gather(*map(ask, clients, jobs))
    return polls
