"""kill -9 of a process that uses the store, at random moments: nothing is lost, doubled or stuck."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import settings

from seesr.studio.records import ENDED
from seesr.studio.store import Store

CHILD = Path(__file__).parent / "restless_child.py"


def run_and_kill(url: str, seed: int, log: Path) -> list[tuple[str, str]]:
    """What a child has said before it was killed, as (deed, id)."""
    with log.open("w+") as file:
        child = subprocess.Popen([sys.executable, CHILD, url, str(seed)], stdout=file)
        try:
            while log.stat().st_size == 0 and child.poll() is None:
                time.sleep(0.01)
            time.sleep(random.Random(seed).uniform(0, 0.5))
            assert child.poll() is None, "the child ended by itself"
        finally:
            child.kill()
            child.wait()
        file.seek(0)
        # A line that was cut off is of a deed that is done, but was not said.
        return [(deed, id) for line in file if line.endswith("\n") for deed, id in [line.split()]]


def test_nothing_is_lost_doubled_or_stuck(database: str, tmp_path: Path) -> None:
    rounds = 60 if settings.get_current_profile_name() == "long" else 5
    said: dict[str, set[str]] = {"added": set(), "claimed": set(), "picture": set(), "ended": set()}
    interrupted: set[str] = set()
    for seed in range(rounds):
        before = Counter(len(ids) for ids in said.values())
        for deed, id in run_and_kill(database, seed, tmp_path / f"{seed}.log"):
            assert id not in said[deed], f"{deed} twice"
            said[deed].add(id)
        assert Counter(len(ids) for ids in said.values()) != before
        with Store(database) as store:
            jobs = {job.id: job for job in store.jobs(count=1_000_000)}
            pictures = {picture.id for picture in store.pictures(count=1_000_000)}
            assert said["added"] <= jobs.keys()
            assert said["picture"] <= pictures
            # Of each round the last deed may be done but not said; it is said now.
            unsaid = [
                jobs.keys() - said["added"],
                {id for id, job in jobs.items() if job.state != "pending"} - said["claimed"],
                pictures - said["picture"],
                {id for id, job in jobs.items() if job.state == "done"} - said["ended"],
            ]
            assert sum(map(len, unsaid)) <= 1
            for ids, more in zip(said.values(), unsaid, strict=True):
                ids |= more
            ran = {id for id, job in jobs.items() if job.state == "running"}
            assert ran == said["claimed"] - said["ended"] - interrupted
            assert set(store.interrupt_running()) == ran
            interrupted |= ran
            assert {job.id for job in store.jobs(states=["interrupted"], count=1_000_000)} == interrupted
    with Store(database) as store:
        while job := store.claim_job("cpu"):
            assert job.id not in said["claimed"], "a job was begun twice"
            said["claimed"].add(job.id)
            store.end_job(job.id, "done")
        assert {job.state for job in store.jobs(count=1_000_000)} <= set(ENDED)
        assert {job.id for job in store.jobs(count=1_000_000)} == said["claimed"] == said["added"]
