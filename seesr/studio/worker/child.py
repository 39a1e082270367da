"""The worker's process: `python -m seesr.studio.worker.child`, which the server starts and speaks to over its pipes.

It ends as soon as the server is gone, however that ended: the pipe is closed then.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from seesr.jobs import ENDS, JobEvent, Worker, parse_request
from seesr.studio.worker.frames import FrameError, read_frame, write_frame

OOM_SCORE = "500"
"""Of 1000: where memory runs out, Linux ends the worker rather than the server."""


def main() -> None:
    """Runs the jobs of a server."""
    from seesr.job_runner import JobRunner, WorkerSettings
    from seesr.machine.allocator import single_malloc_arena

    single_malloc_arena()
    serve(lambda settings: JobRunner(WorkerSettings.model_validate(settings)))


def serve(make_worker: Callable[[dict[str, Any]], Worker]) -> None:
    """Runs jobs that come over standard input, and sends their events over standard output, until the input ends.

    Args:
        make_worker: of the settings, which are the first message.
    """
    incoming, outgoing = _take_pipes()
    # The server ends its worker; Ctrl-C in a terminal reaches both.
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    first = read_frame(incoming)
    if first is None:
        return
    worker = make_worker(first[0]["settings"])
    jobs = SimpleQueue[tuple[dict[str, Any], bytes]]()
    threading.Thread(target=_read, args=(incoming, worker, jobs), name="server", daemon=True).start()
    while True:
        header, content = jobs.get()
        inputs, start = dict[str, bytes](), 0
        for name, length in header["inputs"]:
            inputs[name] = content[start : start + length]
            start += length
        del content

        def emit(event: JobEvent) -> None:
            told: dict[str, Any] = {"event": event.model_dump(mode="json")}
            if event.kind in ENDS:
                told["loaded"] = worker.loaded()
            try:
                write_frame(outgoing, told, event.content or b"")
            except OSError:  # the server is gone
                os._exit(0)

        worker.run(header["job"], parse_request(header["request"]), inputs, emit)


def _read(incoming: BinaryIO, worker: Worker, jobs: SimpleQueue[tuple[dict[str, Any], bytes]]) -> None:
    """Takes messages while the main thread computes; without the server the process has nothing more to do."""
    with suppress(FrameError, OSError):
        while frame := read_frame(incoming):
            match frame[0]["kind"]:
                case "run":
                    jobs.put(frame)
                case "cancel":
                    worker.cancel(frame[0]["job"])
                case "skip":
                    worker.skip(frame[0]["job"])
                case _:
                    pass
    os._exit(0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the server. What libraries print goes to standard error from now on."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return incoming, outgoing


if __name__ == "__main__":
    main()
