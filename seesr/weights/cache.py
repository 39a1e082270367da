"""The local cache: the downloaded full model, and converted legacy files."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from seesr.files import atomic_write, home_folder
from seesr.weights.manifest import Manifest, WeightFile
from seesr.weights.records import Licences, Records

ENVIRONMENT_VARIABLE = "SEESR_CACHE"
RECORDS_FILE = "digests.json"
READ_BYTES = 1 << 22

FileState = Literal["intact", "changed", "missing", "unreadable"]
"""What a file is, compared with its recorded digest."""


@dataclass(frozen=True)
class Cache:
    """A folder with `full/`, the model in the published layout, `partial/`, unfinished downloads, and `converted/`."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        """The folder named by `SEESR_CACHE`, else `seesr` in the user's cache folder (`home_folder`)."""
        path, user_caches = os.environ.get(ENVIRONMENT_VARIABLE), os.environ.get("XDG_CACHE_HOME")
        if path:
            return cls(Path(path))
        return cls((Path(user_caches) if user_caches else home_folder() / ".cache") / "seesr")

    @property
    def full(self) -> Path:
        return self.root / "full"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    def has(self, file: WeightFile) -> bool:
        """Whether the file was fetched and verified, has the same size as then, and is the one in the manifest."""
        record = self.records().get(file.cached_path)
        path = self.full / file.cached_path
        if record is None or not path.is_file() or path.stat().st_size != record["bytes"]:
            return False
        # A legacy file is stored converted; records of older versions lack the digest of the original.
        fetched = record.get("fetched_sha256") if file.is_legacy else record["sha256"]
        return file.sha256 is None or fetched in (None, file.sha256)

    @property
    def licences(self) -> Licences:
        """The licences that were accepted, of the full model and of all others."""
        return Licences(Records(self.root / "licences.json"))

    @property
    def lock(self) -> FileLock:
        """Must be held to change `full/`."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock")

    def missing(self, manifest: Manifest) -> list[WeightFile]:
        return [file for _, file in manifest.files if not self.has(file)]

    def records(self) -> dict[str, dict[str, Any]]:
        """Bytes and sha256 of each file by its path in `full/`; damaged records are left out."""
        records = Records(self.full / RECORDS_FILE).read()
        return {path: record for path, record in records.items() if record.keys() >= {"bytes", "sha256"}}

    def add(self, path: Path, file: WeightFile, original_sha256: str | None = None) -> None:
        """Moves the verified file at `path` into the cache and records its digest, and that of the original if converted."""
        target = self.full / file.cached_path
        target.parent.mkdir(parents=True, exist_ok=True)
        record = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        if original_sha256 is not None:
            record["fetched_sha256"] = original_sha256
        os.replace(path, target)
        self._write_records(self.records() | {file.cached_path: record})

    def invalidate(self, file: WeightFile) -> None:
        """Removes the record of the file, so that the next pull fetches it again."""
        self._write_records({path: record for path, record in self.records().items() if path != file.cached_path})

    def _write_records(self, records: dict[str, dict[str, Any]]) -> None:
        with atomic_write(self.full / RECORDS_FILE) as temporary:
            temporary.write_text(json.dumps(records, indent=1) + "\n")


def sha256(path: Path) -> str:
    return _digest(path, hashlib.sha256())


def file_state(path: Path, digest: str) -> FileState:
    """What a file is, compared with the SHA-256 that was recorded of it."""
    if not path.is_file():
        return "missing"
    try:
        return "intact" if sha256(path) == digest else "changed"
    except OSError:
        return "unreadable"


def file_digest(path: Path, like: str) -> str:
    """The digest of a file of the kind that `like` has: SHA-256 with 64 digits, else that of a git blob."""
    return sha256(path) if len(like) == 64 else git_blob_sha1(path)


def git_blob_sha1(path: Path) -> str:
    """The git blob id, which the hub states as the digest of a small file."""
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
