"""Times the answers of a studio that clients poll while one job runs.

    python -m scripts.poll_studio --address http://127.0.0.1:7860 --clients 50 --seconds 30

Each client has a job of its own and asks twice a second how it is, as clients do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

from seesr.client import ADDRESS, AsyncClient
from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest

INTERVAL = 0.5
"""Seconds between two questions of a client."""


async def poll(address: str, key: str | None, clients: int, seconds: float) -> list[float]:
    """Seconds that each answer took, sorted."""
    times = list[float]()

    async def ask(studio: AsyncClient, job: str, until: float) -> None:
        while time.monotonic() < until:
            begun = time.monotonic()
            await studio.job(job)
            times.append(time.monotonic() - begun)
            await asyncio.sleep(INTERVAL)
        await studio.cancel(job)

    async with AsyncClient(address, key=key) as studio:
        requests = [GenerationRequest(options=GenerationOptions(prompt=f"job {number}")) for number in range(clients)]
        jobs = [(await studio.submit(request)).id for request in requests]
        until = time.monotonic() + seconds
        await asyncio.gather(*(ask(studio, job, until) for job in jobs))
    return sorted(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default=ADDRESS)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    times = asyncio.run(poll(given.address, os.environ.get("SEESR_STUDIO_KEY"), given.clients, given.seconds))
    shares = ", ".join(
        f"{share:.0%} within {times[int(share * (len(times) - 1))] * 1000:.0f} ms" for share in (0.5, 0.95, 1)
    )
    print(f"{given.clients} clients, {len(times)} answers: {shares}")


if __name__ == "__main__":
    main()
