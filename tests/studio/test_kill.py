"""The server is killed while it works: what was finished is there, what waited runs, what ran is told as interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import TESTS, encoded, photograph
from job_requests import generation
from PIL import Image

from seesr.job_runner import WorkerSettings
from seesr.jobs import UpscaleRequest, content_hash
from seesr.options import Options
from seesr.studio.records import User
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio
from seesr.studio.worker.local_worker import CHILD, LocalWorker

ANN = User(name="ann")
STAND_IN = (sys.executable, str(TESTS / "stand_in_child.py"))
PROGRAM = """
import asyncio, sys
from pathlib import Path
from seesr.job_runner import WorkerSettings
from seesr.studio.records import User
from seesr.studio.settings import StudioSettings
from seesr.studio.studio import Studio
from seesr.studio.worker.local_worker import LocalWorker
folder, count, *command = sys.argv[1:]
worker = LocalWorker(WorkerSettings(), "cpu", command)
studio = Studio.open(Path(folder), StudioSettings(), {"cpu": worker})
async def watch():
    pictures = 0
    async for event in studio.events_of_user(User(name="ann")):
        pictures += event.kind == "picture"
        if pictures == int(count) and event.kind in ("picture", "progress"):
            print(worker.process_id, flush=True)
asyncio.run(watch())
"""


@pytest.mark.parametrize(
    ("command", "kill_at"), [(STAND_IN, 1), (STAND_IN, 3), (CHILD, 2)], ids=["first", "third", "models"]
)
def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path, command: tuple[str, ...], kill_at: int) -> None:
    photo = encoded(photograph("chelsea.png", (150, 80, 182, 112)), "PNG")
    upscaling = UpscaleRequest(task="upscale", image=content_hash(photo), options=Options(scale=1, steps=1, tags=False))
    with Studio.open(tmp_path, StudioSettings(), {}) as studio:
        jobs = [studio.submit(ANN, upscaling, {upscaling.image: photo})]
        jobs += [studio.submit(ANN, request) for request in (generation(batch_count=4, seed=0), upscaling, upscaling)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "STAND_IN_SECONDS": "0.2"}
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), str(kill_at), *command]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)
    assert server.stdout is not None
    worker = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    server.stdout.close()
    worker.wait(timeout=20)
    again = LocalWorker(WorkerSettings(device="cpu"), "cpu", command)
    with Studio.open(tmp_path, StudioSettings(), {"cpu": again}) as studio:
        ended = [studio.wait(ANN, job.id, 120) for job in jobs]
        expected = ["done", "interrupted", "done", "done"]
        # The kill may come between the last picture of a job and its end.
        assert [job.state for job in ended] in (expected, ["interrupted", "done", "done", "done"])
        pictures = studio.pictures(ANN)
        assert {path.stem for path in (tmp_path / "outputs").glob("*/*")} == {picture.id for picture in pictures}
        assert len({(picture.job, picture.index) for picture in pictures}) == len(pictures)
        for picture in pictures:
            _, path = studio.picture_content(ANN, picture.id)
            assert content_hash(path.read_bytes()) == picture.digest
            Image.open(path).load()
        assert studio.queue().pending == studio.queue().running == 0
