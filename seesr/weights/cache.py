"""The local cache: the full model once it is fetched, and legacy files once they are converted."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from seesr.files import whole_file
from seesr.weights.manifest import File, Manifest

ENVIRONMENT_VARIABLE = "SEESR_CACHE"
RECORDS = "digests.json"
CHUNK = 1 << 22


@dataclass(frozen=True)
class Cache:
    """A folder: `full/` holds the model in the published layout, `partial/` downloads, `converted/` legacy files."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        """The folder that `SEESR_CACHE` names, else `seesr` where this user's caches are."""
        named, caches = os.environ.get(ENVIRONMENT_VARIABLE), os.environ.get("XDG_CACHE_HOME")
        if named:
            return cls(Path(named))
        return cls((Path(caches) if caches else Path.home() / ".cache") / "seesr")

    @property
    def full(self) -> Path:
        return self.root / "full"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    def has(self, file: File) -> bool:
        """Whether the file was fetched and found right, still has its size, and is the one that the manifest means."""
        record = self.records().get(file.kept_as)
        path = self.full / file.kept_as
        if record is None or not path.is_file() or path.stat().st_size != record["bytes"]:
            return False
        # Of a legacy file what was converted is kept; an older record does not say of what.
        fetched = record.get("fetched_sha256") if file.is_legacy else record["sha256"]
        return file.sha256 is None or fetched in (None, file.sha256)

    @property
    def lock(self) -> FileLock:
        """Held by whoever changes `full/`."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock")

    def missing(self, manifest: Manifest) -> list[File]:
        return [file for _, file in manifest.files if not self.has(file)]

    def records(self) -> dict[str, dict]:
        """Bytes and sha256 of each file, by its path in `full/`; a damaged record counts as none."""
        try:
            records = json.loads((self.full / RECORDS).read_text())
        except (OSError, ValueError):
            return {}
        known = records.items() if isinstance(records, dict) else ()
        return {path: record for path, record in known if isinstance(record, dict) and record.keys() >= {"bytes", "sha256"}}

    def keep(self, found: Path, file: File, original: str | None = None) -> None:
        """Moves a checked file to its place and records its digest; of one that was converted also the `original`'s."""
        target = self.full / file.kept_as
        target.parent.mkdir(parents=True, exist_ok=True)
        record = {"bytes": found.stat().st_size, "sha256": sha256(found)}
        if original is not None:
            record["fetched_sha256"] = original
        os.replace(found, target)
        self._write(self.records() | {file.kept_as: record})

    def forget(self, file: File) -> None:
        """Lets the next pull fetch the file again."""
        self._write({path: record for path, record in self.records().items() if path != file.kept_as})

    def _write(self, records: dict[str, dict]) -> None:
        with whole_file(self.full / RECORDS) as temporary:
            temporary.write_text(json.dumps(records, indent=1) + "\n")


def sha256(path: Path) -> str:
    return _digest(path, hashlib.sha256())


def git_blob_sha1(path: Path) -> str:
    """How git, and so the hub, names the content of a small file."""
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
