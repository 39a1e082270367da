"""Atomic writing of files, and the folder of the user's own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA_VARIABLE = "SEESR_DATA"


def data_folder() -> Path:
    """Where the user's own files are: the folder named by `SEESR_DATA`, else `seesr` in the user's data folder."""
    path, user_data = os.environ.get(DATA_VARIABLE), os.environ.get("XDG_DATA_HOME")
    if path:
        return Path(path)
    return (Path(user_data) if user_data else Path.home() / ".local" / "share") / "seesr"


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yields an empty temporary file in the folder of `target`, which replaces `target` if the block raises nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not named after `target`, whose name may already have the maximum length.
    temporary = target.parent / f".seesr-{secrets.token_hex(8)}.part"
    # Created here, so that its permissions follow the user's umask.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = temporary.stat().st_mode
    try:
        yield temporary
        if temporary.stat().st_mode != mode:  # some libraries replace it by a new file
            temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
