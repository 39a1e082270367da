"""Fetches one file by HTTP: goes on where it was broken off, also by another process, and believes nothing that it is told.

What was fetched of a file is kept under a temporary name until its digest is right.
"""

from __future__ import annotations

import errno
import shutil
import time
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from seesr.addresses import AddressRules, shown
from seesr.errors import CanceledError, WeightsError, first_line
from seesr.files import gigabytes
from seesr.weights.cache import file_digest
from seesr.weights.header import LENGTH_BYTES, MAX_HEADER_BYTES

ATTEMPTS = 5
"""That one after the other brought nothing new."""
READ_BYTES = 1 << 20
RESERVE_BYTES = 64 << 20
"""That stay free on the disk."""
TRANSIENT = (408, 429, 500, 502, 503, 504)
"""Status codes after which the same may be asked again."""
OnBytes = Callable[[int, int], None]
"""Called with the bytes that are there, and those of the whole file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address."""

    address: str
    digest: str
    """SHA-256, or the SHA-1 of a git blob, as hexadecimal digits."""
    size: int | None = None
    """Bytes, where they are known beforehand."""
    secret: Mapping[str, str] = field(default_factory=dict)
    """Headers for the address's own host."""
    is_safetensors: bool = True


def fetch(
    file: RemoteFile,
    target: Path,
    rules: AddressRules,
    on_bytes: OnBytes | None = None,
    cancelled: Callable[[], bool] | None = None,
    pause: float = 1.0,
) -> None:
    """Fetches a file to `target`, whose folder must be there; what a call before this one has fetched is not fetched again.

    Args:
        cancelled: asked between blocks of a MiB at most.
        pause: seconds after the first transfer that broke off; twice as many after each next.

    Raises:
        AddressError: its address, or one that it redirects to, is refused.
        WeightsError: the server does not give it, it is not what was promised, or there is no room.
        CanceledError: `cancelled` said so; what was fetched stays.
        OSError: it cannot be written.
    """
    part = target.with_name(target.name + ".part")
    part.touch()
    failures, reason = 0, ""
    while failures < ATTEMPTS:
        before = part.stat().st_size
        if file.size is None or before < file.size:
            try:
                reason = _transfer(file, part, rules, on_bytes or (lambda done, total: None), cancelled or (lambda: False))
            except urllib.error.HTTPError as error:
                if error.code == 416:  # what is there is longer than the file
                    part.unlink()
                    part.touch()
                elif error.code not in TRANSIENT:
                    raise _failure(file, f"the server answered {error.code}") from None
                reason = f"the server answered {error.code}"
            except UnicodeError:  # a host's name with too long a part, or a path beyond ASCII
                raise _failure(file, "its address cannot be written in ASCII") from None
            except (OSError, HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                reason = first_line(getattr(error, "reason", None) or error)
        if not reason or (file.size is not None and part.stat().st_size == file.size):
            _check_digest(file, part)
            part.replace(target)
            return
        failures = 0 if part.stat().st_size > before else failures + 1
        if failures < ATTEMPTS:
            _wait(pause * 2 ** max(failures - 1, 0), cancelled)
    raise _failure(file, f"{reason}; {part.stat().st_size:,} bytes are kept, and fetching again goes on after them")


def require_room(folder: Path, needed: int) -> None:
    """Raises WeightsError if the disk of `folder` has no room for so many bytes."""
    free = max(shutil.disk_usage(folder).free - RESERVE_BYTES, 0)
    if needed > free:
        raise WeightsError(
            f"{gigabytes(needed)} are needed, and {gigabytes(free)} are free in {folder}; "
            "free disk space, or set SEESR_DATA to another folder."
        )


def _transfer(file: RemoteFile, part: Path, rules: AddressRules, on_bytes: OnBytes, cancelled: Callable[[], bool]) -> str:
    """Appends to `part` what it lacks; returns why that is not all, or nothing."""
    start = part.stat().st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with rules.open(file.address, headers, file.secret) as response:
        if response.status != 206 or not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            start = 0  # the whole file comes
        total = _total(file, response, start)
        require_room(part.parent, total - start)
        with part.open("ab" if start else "wb") as output:
            done = start
            # What is there, however little: a slow server must not keep from looking whether it is cancelled.
            while done < total and (block := response.read1(min(READ_BYTES, total - done))):
                if cancelled():
                    raise CanceledError(f"fetching {shown(file.address)} was cancelled; what was fetched of it is kept.")
                output.write(block)
                if file.is_safetensors and done < LENGTH_BYTES + 1 <= done + len(block):
                    output.flush()
                    _check_beginning(file, part)
                done += len(block)
                on_bytes(done, total)
    return "" if done == total else f"the transfer ended after {done:,} of {total:,} bytes"


def _total(file: RemoteFile, response: HTTPResponse, start: int) -> int:
    """Bytes of the whole file, of which the response brings those from `start` on."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        if file.size is None:
            raise _failure(file, "the server does not state its size")
        return file.size
    if file.size is not None and start + int(length) != file.size:
        raise _failure(file, f"the server offers {start + int(length):,} bytes instead of {file.size:,}")
    return start + int(length)


def _check_beginning(file: RemoteFile, part: Path) -> None:
    """Deletes the file and raises WeightsError if it cannot be one of safetensors, before the rest is fetched."""
    with part.open("rb") as beginning:
        length, first = int.from_bytes(beginning.read(LENGTH_BYTES), "little"), beginning.read(1)
    if length > MAX_HEADER_BYTES or first != b"{":
        part.unlink()
        raise _failure(file, "it is not a safetensors file, whatever its name, and a file of another kind may run code")


def _check_digest(file: RemoteFile, part: Path) -> None:
    actual = file_digest(part, file.digest)
    if actual != file.digest:
        part.unlink()
        raise _failure(file, f"its digest is {actual[:12]}... instead of {file.digest[:12]}...; it was deleted")


def _failure(file: RemoteFile, reason: str) -> WeightsError:
    return WeightsError(f"{shown(file.address)} could not be fetched: {reason}.")


def _wait(seconds: float, cancelled: Callable[[], bool] | None) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (cancelled and cancelled()):
        time.sleep(min(left, 0.2))
