"""Fifty clients that poll while one worker runs their jobs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import event as sql_event
from studio_server import ServedStudio, serving, words

from seesr.client import AsyncClient

CLIENTS, POLLS = 50, 6


def test_fifty_clients_poll_while_a_worker_runs(tmp_path: Path) -> None:
    """All jobs are made, the two users in turns, and what a poll asks of the store does not grow with their number."""
    with serving(tmp_path, users=True, seconds=0.005) as served:
        queries = list[str]()

        def count(*args: Any) -> None:
            if not threading.current_thread().name.startswith("dispatcher"):
                queries.append(args[2])

        engine = served.studio.store._engine  # what is sent to the database is not to be seen from outside
        jobs = asyncio.run(_submit_and_poll(served, lambda: sql_event.listen(engine, "before_cursor_execute", count)))
        assert len(queries) <= 10 * CLIENTS * POLLS
        order = [served.studio.store.job(job).user for job in served.worker.ran]
    assert sorted(jobs) == sorted(served.worker.ran)
    # What the first user had added before the second came may have run; then they take turns.
    assert "annaanna" not in "".join(order[-20:])


async def _submit_and_poll(served: ServedStudio, submitted: Any) -> list[str]:
    served.studio.store.set_paused("until all have asked")
    clients = [AsyncClient(served.address, key=served.key(user)) for user in ("anna", "ben") for _ in range(CLIENTS // 2)]
    jobs = [(await client.submit(words(str(number)))).id for number, client in enumerate(clients)]
    submitted()
    served.studio.store.set_paused(None)
    served.studio.dispatcher.wake()

    async def poll(client: AsyncClient, job: str) -> None:
        for _ in range(POLLS):
            await client.job(job)
            await asyncio.sleep(0.02)

    await asyncio.gather(*map(poll, clients, jobs))
    for client, job in zip(clients, jobs, strict=True):
        while (await client.job(job)).ended is None:
            await asyncio.sleep(0.1)
        await client.close()
    return jobs
