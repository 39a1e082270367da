"""A worker on this machine: a child process that holds the models, started anew whenever it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from seesr.files import DATA_VARIABLE
from seesr.job_runner import WorkerSettings
from seesr.jobs import ENDS, JobEvent, JobRequest
from seesr.studio.worker.frames import FrameError, read_frame, write_frame

CHILD = (sys.executable, "-m", "seesr.studio.worker.child")
CANCEL_SECONDS = 30.0
"""How long the child may take to end a job that was cancelled, before it is killed."""
CLOSE_SECONDS, REPEAT_SECONDS = 5.0, 0.5


class LocalWorker:
    """Implements `Worker`.

    Args:
        settings: how jobs run; `seconds` is the time for each of them.
        device: that the child uses.
        command: that starts the child, which speaks as `child.serve` does.
        cancel_seconds: how long it may take to end a job that was cancelled, before it is killed.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        device: str = "auto",
        command: Sequence[str] = CHILD,
        cancel_seconds: float = CANCEL_SECONDS,
    ) -> None:
        self.settings = settings.model_copy(update={"device": device})
        self.command, self.cancel_seconds = list(command), cancel_seconds
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._watch: _Watch | None = None
        self._loaded, self._is_closed = list[str](), False

    def start(self) -> None:
        """Starts the child, which otherwise the first job does."""
        with self._lock:
            self._ensure_child()

    def run(self, job: str, request: JobRequest, inputs: Mapping[str, bytes], emit: Callable[[JobEvent], None]) -> None:
        """See `Worker.run`. Where the child ends before the job, that is told as the job's end."""
        with self._lock:
            if self._is_closed:
                emit(JobEvent(job=job, sequence=1, kind="cancelled"))
                return
            child = self._ensure_child()
            watch = self._watch = _Watch(child, job, self.settings.seconds, self.cancel_seconds)
        watch.start()
        try:
            end = self._talk(child, job, request, inputs, emit)
        except BaseException:
            child.kill()  # it still works on a job that nobody listens to
            child.wait()
            raise
        finally:
            watch.end()
            with self._lock:
                self._watch = None
        emit(self._told(end, None if end else child.wait(), watch))

    def cancel(self, job: str) -> None:
        watch = self._watch
        if watch is not None and watch.job == job:
            watch.cancel()

    def skip(self, job: str) -> None:
        watch = self._watch
        if watch is not None and watch.job == job:
            watch.child.send({"kind": "skip", "job": job}, timeout=REPEAT_SECONDS)

    def loaded(self) -> list[str]:
        return list(self._loaded)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._child is not None:
                self._child.close()

    @property
    def process_id(self) -> int | None:
        """That of the child; None where it does not run."""
        child = self._child
        return child.process.pid if child is not None and child.is_alive else None

    def _ensure_child(self) -> _Child:
        if self._child is None or not self._child.is_alive:
            if self._child is not None:
                self._child.close()
            self._loaded = []
            self._child = _Child(self.command, self.settings)
        return self._child

    def _talk(
        self,
        child: _Child,
        job: str,
        request: JobRequest,
        inputs: Mapping[str, bytes],
        emit: Callable[[JobEvent], None],
    ) -> JobEvent | None:
        """Hands a job over and its events on, until its last one, which is returned; None where the child ended before."""
        about = {"kind": "run", "job": job, "request": request.model_dump(mode="json")}
        about["inputs"] = [(name, len(content)) for name, content in inputs.items()]
        if not child.send(about, b"".join(inputs.values())):
            return None
        while frame := child.receive():
            header, content = frame
            event = JobEvent.model_validate(header["event"] | {"content": content or None})
            if event.kind in ENDS:
                self._loaded = list(header.get("loaded", ()))
                return event
            emit(event)
        return None

    def _told(self, end: JobEvent | None, status: int | None, watch: _Watch) -> JobEvent:
        """What is told of the end of a job: what the child said of it, or where it ended before, why, by its exit status."""
        job = watch.job
        if watch.is_late and (end is None or end.kind == "cancelled"):
            error = f"the job took longer than {watch.seconds:g} seconds, which is all that is allowed; ask for less."
            return _failed(job, error, "TimeLimitError")
        if end is not None:
            return end
        if watch.is_cancelled:
            return JobEvent(job=job, sequence=0, kind="cancelled")
        if status == -signal.SIGKILL:
            error = "the system ended the worker, most likely because memory ran out; ask for a smaller picture."
            return _failed(job, error, "OutOfMemoryError", state="interrupted")
        error = f"the worker ended while it ran this job (exit status {status}); retry it."
        return _failed(job, error, "WorkerError", state="interrupted")


class _Child:
    """The process, and the pipes to it."""

    def __init__(self, command: Sequence[str], settings: WorkerSettings) -> None:
        data = {} if settings.data is None else {DATA_VARIABLE: str(settings.data)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | data, bufsize=-1
        )
        self._sending = threading.Lock()
        self.send({"settings": settings.model_dump(mode="json")})

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, header: Mapping[str, object], content: bytes = b"", timeout: float = -1) -> bool:
        """Sends a message; False where nobody takes it, or another one is being sent for `timeout` seconds."""
        if not self._sending.acquire(timeout=timeout):
            return False
        try:
            write_frame(_pipe(self.process.stdin), header, content)
        except (OSError, ValueError):  # it has ended, or is being closed
            return False
        finally:
            self._sending.release()
        return True

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message; None when the process has ended."""
        try:
            return read_frame(_pipe(self.process.stdout))
        except (FrameError, OSError, ValueError):
            self.kill()
            return None

    def wait(self) -> int:
        """Its exit status, negative for a signal. A process that only closed its pipe is killed."""
        try:
            return self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        """Ends it: without its pipe it has nothing to do."""
        if self._sending.acquire(timeout=CLOSE_SECONDS):
            with suppress(OSError):
                _pipe(self.process.stdin).close()
            self._sending.release()
        self.wait()


class _Watch(threading.Thread):
    """Sees to it that a job ends in time, and soon after it was cancelled."""

    def __init__(self, child: _Child, job: str, seconds: float | None, cancel_seconds: float) -> None:
        super().__init__(name="watch", daemon=True)
        self.child, self.job, self.seconds, self.cancel_seconds = child, job, seconds, cancel_seconds
        self.is_cancelled = self.is_late = False
        self._is_ended, self._changed = False, threading.Condition()

    def run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_ended or self.is_cancelled, self.seconds)
            if self._is_ended:
                return
            self.is_late = not self.is_cancelled
        # Again and again: the child may not have begun the job yet.
        end = time.monotonic() + self.cancel_seconds
        while (left := end - time.monotonic()) > 0:
            # A child that hangs may not even have taken the job's pictures.
            self.child.send({"kind": "cancel", "job": self.job}, timeout=min(left, REPEAT_SECONDS))
            with self._changed:
                if self._changed.wait_for(lambda: self._is_ended, min(left, REPEAT_SECONDS)):
                    return
        self.child.kill()

    def cancel(self) -> None:
        with self._changed:
            self.is_cancelled = True
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()


def _failed(job: str, error: str, code: str, state: str = "failed") -> JobEvent:
    return JobEvent(job=job, sequence=0, kind="failed", data={"error": error, "code": code, "state": state})


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # both are asked for
    return pipe
