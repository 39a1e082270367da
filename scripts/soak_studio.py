"""Runs many mixed jobs on the studio with its real worker, and says what memory the server and the worker use meanwhile.

    python -m scripts.soak_studio --jobs 500

prints a line for every hundredth job, and what both grew by from the first of these lines to the last.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from seesr.generation.options import GenerationOptions
from seesr.job_runner import WorkerSettings
from seesr.jobs import GenerationRequest, JobRequest, TagsRequest, UpscaleRequest, content_hash
from seesr.options import Options
from seesr.studio.limits import OperatorLimits
from seesr.studio.records import User
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio
from seesr.studio.worker.local_worker import LocalWorker

USERS = [User(name=name) for name in ("ann", "bob", "cid")]
WAITING = 6
"""Jobs that wait at most."""
EXPECTED = {"cancelled": "cancelled", "refused": "failed"}


def mixed_requests(pictures: list[str], count: int) -> Iterator[tuple[str, JobRequest]]:
    """Names and jobs: of every task, of several sizes, with some that are cancelled or refused; always the same."""
    draw = random.Random(0)
    for number in range(count):
        image, mask = draw.sample(pictures, 2)
        width, height, steps = draw.choice((64, 96, 128)), draw.choice((64, 96)), draw.choice((1, 2))
        options = GenerationOptions(prompt=f"a pictogram of {number}", steps=steps, width=width, height=height)
        several = options.model_copy(update={"batch_count": 2})
        upscaling = Options(scale=draw.choice((1, 1.5, 2)), steps=1)
        yield draw.choice(
            [
                ("text to image", GenerationRequest(options=several)),
                ("image to image", GenerationRequest(task="image to image", options=options, image=image)),
                ("inpainting", GenerationRequest(task="inpainting", options=options, image=image, mask=mask)),
                ("upscale", UpscaleRequest(task="upscale", image=image, options=upscaling)),
                ("tags", TagsRequest(task="tags", image=image)),
                ("cancelled", GenerationRequest(options=several.model_copy(update={"steps": 50}))),
                ("refused", GenerationRequest(options=options, checkpoint="nothing")),
            ]
        )


def soak(data: Path, jobs: int, every: int = 100) -> list[dict[str, float]]:
    """Runs the jobs; returns the megabytes of server and worker after every so many.

    Raises:
        AssertionError: a job ended otherwise than it should.
    """
    worker = LocalWorker(WorkerSettings(data=data), "cpu")
    settings, rows, began = StudioSettings(limits=OperatorLimits()), list[dict[str, float]](), time.monotonic()
    with Studio.open(data, settings, {"cpu": worker}) as studio:
        contents = {content_hash(content): content for content in (_picture() for _ in range(3))}
        begun = list[tuple[User, str, str]]()
        for number, (title, request) in enumerate(mixed_requests([*contents], jobs), 1):
            user = USERS[number % len(USERS)]
            job = studio.submit(user, request, {name: contents[name] for name in request.pictures})
            begun.append((user, title, job.id))
            if title == "cancelled":
                _cancel_when_it_runs(studio, user, job.id)
            is_measured = number % every == 0 or number == jobs
            while len(begun) > (0 if is_measured else WAITING):
                _check(studio, *begun.pop(0))
            if is_measured:
                rows.append({"jobs": number, "seconds": round(time.monotonic() - began), **_megabytes(worker)})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def _check(studio: Studio, user: User, name: str, id: str) -> None:
    job = studio.wait(user, id, 600)
    assert job.state == EXPECTED.get(name, "done"), f"the job {name} is {job.state}: {job.error}"
    if name not in (*EXPECTED, "tags"):
        assert job.pictures, f"the job {name} made no picture"


def _cancel_when_it_runs(studio: Studio, user: User, id: str) -> None:
    for event in studio.events(user, id, timeout=600):
        if event.kind == "progress" and event.data["stage"] == "denoise":
            studio.cancel(user, id)


def _megabytes(worker: LocalWorker) -> dict[str, float]:
    processes = {"server": psutil.Process(), "worker": psutil.Process(worker.process_id)}
    return {name: round(process.memory_info().rss / 1e6, 1) for name, process in processes.items()}


def _picture() -> bytes:
    buffer = BytesIO()
    Image.effect_noise((48, 48), 64).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--every", type=int, default=100)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(Path(folder), chosen.jobs, chosen.every)
    growth = {name: round(rows[-1][name] - rows[0][name], 1) for name in ("server", "worker")}
    print(json.dumps({"growth_in_megabytes": growth}))
    return growth


if __name__ == "__main__":
    main()
