"""A process that adds, claims and ends jobs at random until it is killed; each line says what it has done.

Run as `python restless_child.py URL SEED`.
"""

from __future__ import annotations

import os
import random
import sys
from datetime import UTC, datetime

from seesr.generation.options import GenerationOptions
from seesr.jobs import GenerationRequest
from seesr.studio.records import PictureRecord
from seesr.studio.store import Store


def say(*words: str) -> None:
    """One line, which is out when this returns."""
    os.write(1, (" ".join(words) + "\n").encode())


def main(url: str, seed: int) -> None:
    """Works without end."""
    draw = random.Random(seed)
    store = Store(url)
    running: list[tuple[str, int]] = []
    request = GenerationRequest(options=GenerationOptions(prompt="a gull", width=64, height=64))
    while True:
        what = draw.random()
        if what < 0.4:
            say("added", store.add_job(draw.choice(["ada", "bo"]), request).id)
        elif what < 0.6 and (job := store.claim_job("cpu")):
            running.append((job.id, 0))
            say("claimed", job.id)
        elif what < 0.85 and running:
            id, index = running.pop(0)
            picture = PictureRecord(
                id=f"{id}-{index}",
                job=id,
                user="ada",
                index=index,
                created=datetime.now(UTC),
                width=64,
                height=64,
                media_type="image/png",
                size=100,
                digest="0" * 64,
            )
            store.add_picture(picture)
            running.append((id, index + 1))
            say("picture", picture.id)
        elif running:
            id, _ = running.pop(0)
            store.end_job(id, "done")
            say("ended", id)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
