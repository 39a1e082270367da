"""A folder for temporary files that goes when its process ends, however it ends."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

REMOVER = 'read -r line; rm -rf -- "$0"'
"""Waits for the end of its input."""
BLOCKED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals that a supervisor sends to a whole group of processes."""


def make_temporary_folder() -> Path:
    """Makes a folder that a process of the shell removes once this process has ended, even by SIGKILL.

    The shell reads from a pipe whose other end this process alone holds, and never closes.
    """
    folder = Path(tempfile.mkdtemp(prefix="seesr-")).resolve()
    reading, _held = os.pipe()
    silent = [(os.POSIX_SPAWN_OPEN, output, os.devnull, os.O_WRONLY, 0) for output in (1, 2)]
    os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", REMOVER, str(folder)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *silent],
        setsigmask=BLOCKED,
    )
    os.close(reading)
    return folder
