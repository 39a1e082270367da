"""A worker without models, which draws grey pictures: what it does else, the prompt says."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from seesr.jobs import GenerationRequest, JobEvent, JobRequest, TagsRequest

STEPS = 4


class StandInWorker:
    """Implements `seesr.jobs.Worker`.

    Words in the prompt: `slow` (a second a step), `fail`, and in a child process `crash`, `hang` and `killed`.

    Args:
        seconds: of each step.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.ran = seconds, list[str]()
        self._cancelled, self._skipped = threading.Event(), threading.Event()
        self._current: str | None = None

    def run(self, job: str, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        self._cancelled.clear()
        self._current = job
        self.ran.append(job)

        def say(kind: str, content: bytes | None = None, **data: object) -> None:
            emit(JobEvent.model_validate({"job": job, "sequence": 0, "kind": kind, "data": data, "content": content}))

        prompt = getattr(request.options, "prompt", "") if not isinstance(request, TagsRequest) else ""
        count = request.options.count if isinstance(request, GenerationRequest) else 1
        seconds = 1.0 if "slow" in prompt else self.seconds
        say("started")
        print("libraries print, too")  # in a child to what was the server's pipe
        for word, act in {"crash": lambda: os._exit(3), "killed": lambda: os.kill(os.getpid(), signal.SIGKILL)}.items():
            if word in prompt:
                act()
        if "hang" in prompt:
            time.sleep(1e6)
        if "fail" in prompt:
            say("failed", error="it failed, as the prompt asked.")
            return
        if isinstance(request, TagsRequest):
            say("tags", tags={"cat": 0.9})
            say("done", result={"tags": {"cat": 0.9}}, notes=[])
            return
        for index in range(count):
            self._skipped.clear()
            for step in range(STEPS):
                if self._cancelled.wait(seconds) or self._cancelled.is_set():
                    say("cancelled")
                    return
                if self._skipped.is_set():
                    break
                say("progress", stage="denoise", step=step, steps=STEPS, picture=index, pictures=count, eta=seconds)
                say("preview", picture(8), media_type="image/jpeg", picture=index)
            else:
                settings = {"seed": index, "prompt": prompt}
                about = {"width": 64, "height": 64, "media_type": "image/png", "settings": settings, "record": {}}
                say("picture", picture(64), index=index, seed=index, **about)
        say("note", text="a grey picture")
        say("done", result={"seconds": {"denoise": seconds * STEPS}, "plan": "whole"}, notes=[])

    def cancel(self, job: str) -> None:
        if job == self._current:
            self._cancelled.set()

    def skip(self, job: str) -> None:
        if job == self._current:
            self._skipped.set()

    def loaded(self) -> list[str]:
        return ["stand-in"]

    def close(self) -> None:
        self._cancelled.set()


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


def picture(side: int) -> bytes:
    """A grey picture as a PNG file."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(buffer, "PNG")
    return buffer.getvalue()
