"""Finished pictures at a URL of fsspec's: a bucket, or a folder on another machine."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator

import fsspec

from seesr.errors import first_line
from seesr.studio.errors import StorageError, StudioError

logger = logging.getLogger("seesr.studio")

WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
"""Protocols of stores in which a file appears when it is whole; elsewhere it is written under another name first."""


def is_url(outputs: str) -> bool:
    """Whether this is a URL, and no folder of this machine."""
    return "://" in outputs and not outputs.startswith("file://")


class Bucket:
    """Files by name below a URL; each is whole or absent. Thread-safe.

    Addresses and keys of the storage are in the environment, as fsspec and the storage's own library read them.

    Raises:
        StudioError: the URL is of no known kind, or a package lacks that it needs.
    """

    def __init__(self, url: str) -> None:
        protocol = url.partition("://")[0]
        try:
            self._files, root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StudioError(
                f"outputs at {protocol}:// cannot be kept ({first_line(error)}); install what it needs, or give another URL."
            ) from error
        self._root, self._is_whole = root.rstrip("/"), protocol in WHOLE_OBJECTS

    def write(self, name: str, content: bytes) -> None:
        """Writes a file.

        Raises:
            StorageError: the storage does not answer, or refuses; no file of this name is left.
        """
        path = f"{self._root}/{name}"
        with _storage_errors("written"):
            if self._is_whole:
                self._files.pipe_file(path, content)
                return
            temporary = f"{self._root}/.seesr-{secrets.token_hex(8)}.part"
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(temporary, content)
            self._files.mv(temporary, path)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        with _storage_errors("read"):
            try:
                return self._files.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        with _storage_errors("removed"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")


@contextlib.contextmanager
def _storage_errors(done: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each storage's library has errors of its own, with addresses in them
        logger.warning("a picture could not be %s at the outputs' URL: %s", done, first_line(error))
        raise StorageError(
            f"the picture cannot be {done}: the storage of the outputs failed ({type(error).__name__}); "
            "try again later, or ask who runs the studio."
        ) from error
