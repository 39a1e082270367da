"""Atomic writing of files, and the folders of the user's own."""

from __future__ import annotations

import getpass
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seesr.errors import SeeSRError

DATA_VARIABLE = "SEESR_DATA"


def home_folder() -> Path:
    """The user's home; of a user without one, as in some containers, a private folder in that for temporary files.

    Raises:
        SeeSRError: that folder belongs to another user, or cannot be made.
    """
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry of the user in /etc/passwd
        pass
    user = getattr(os, "getuid", lambda: 0)()
    try:
        folder = Path(tempfile.gettempdir()) / f"seesr-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        is_own = folder.lstat().st_uid == user and folder.is_dir() and not folder.is_symlink()
    except OSError as error:
        raise SeeSRError(f"this user has no home folder ({error}); set HOME, or SEESR_CACHE and {DATA_VARIABLE}.") from error
    if not is_own:
        raise SeeSRError(
            f"this user has no home folder, and {folder} is not its own; set HOME, or SEESR_CACHE and {DATA_VARIABLE}."
        )
    return folder


def data_folder() -> Path:
    """Where the user's own files are: the folder named by `SEESR_DATA`, else `seesr` in the user's data folder."""
    path, user_data = os.environ.get(DATA_VARIABLE), os.environ.get("XDG_DATA_HOME")
    if path:
        return Path(path)
    return (Path(user_data) if user_data else home_folder() / ".local" / "share") / "seesr"


def user_name() -> str:
    """The name of the user who runs the program, for records; its number where it has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(getattr(os, "getuid", lambda: "unknown")())


def gigabytes(size: int) -> str:
    """A number of bytes for people: `1.2 GB`, `3 MB`."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} KB"


@contextmanager
def atomic_write(target: Path, mode: int | None = None) -> Iterator[Path]:
    """Yields an empty temporary file in the folder of `target`, which replaces `target` if the block raises nothing.

    What a link at `target` points to is replaced, not the link. The new file has the permissions `mode`, else
    those of the one before, and its owner and group where this user may give it away.
    """
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not named after `target`, whose name may already have the maximum length.
    temporary = target.parent / f".seesr-{secrets.token_hex(8)}.part"
    # Created here, so that its permissions follow the user's umask; what replaces a file is private while it is written.
    before = target.stat() if target.exists() else None
    if mode is None and before:
        mode = before.st_mode & 0o777
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else 0o600))
    mode = temporary.stat().st_mode & 0o777 if mode is None else mode
    try:
        yield temporary
        if before:
            _give(temporary, before.st_uid, before.st_gid)
        if temporary.stat().st_mode & 0o777 != mode:  # or a library has replaced it by a new file
            temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _give(path: Path, owner: int, group: int) -> None:
    """Changes owner and group, as far as this user may."""
    status = path.stat()
    if hasattr(os, "chown") and (status.st_uid, status.st_gid) != (owner, group):
        for user in (owner, -1):  # who may not change the owner may still give it to a group of its own
            try:
                os.chown(path, user, group)
                return
            except PermissionError:
                continue
