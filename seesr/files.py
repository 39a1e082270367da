"""Files that are either whole or not there at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A new file beside `target` that takes its place when the block ends well and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not named after `target`, whose name may be as long as names can be.
    temporary = target.parent / f".seesr-{secrets.token_hex(8)}.part"
    # Made here, so that it has the permissions that the user's umask gives any new file.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = temporary.stat().st_mode
    try:
        yield temporary
        if temporary.stat().st_mode != mode:  # some libraries put a file of their own in its place
            temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
