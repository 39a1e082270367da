"""What a hub on this machine serves, how it misbehaves, and what is fetched from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from seesr.weights.cache import Cache
from seesr.weights.manifest import Manifest

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has, and how it misbehaves."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path: `repository/file`, `spaces/repository/file`, or any for plain addresses."""
    status: dict[str, int] = field(default_factory=dict)
    break_off: dict[str, int] = field(default_factory=dict)
    """Bytes after which the first transfer of a file ends."""
    lie: set[str] = field(default_factory=set)
    """Files whose stated digest is not that of their content."""
    length: dict[str, int] = field(default_factory=dict)
    """Files whose stated length is not that of their content."""
    redirect: dict[str, str] = field(default_factory=dict)
    """Addresses to which files are redirected."""
    card: dict[str, str] = field(default_factory=dict)
    """What the cards of all repositories say."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, range) of each request."""

    def listing(self, repository: str) -> dict[str, object]:
        """What the hub's API says of a repository."""
        siblings = []
        for path, content in self.files.items():
            if path.startswith(f"{repository}/"):
                stated = b"something else" if path in self.lie else content
                size = self.length.get(path, len(content))
                file: dict[str, object] = {"rfilename": path.removeprefix(f"{repository}/"), "size": size}
                file["blobId"] = hashlib.sha1(b"blob %d\0" % len(stated) + stated).hexdigest()
                if path.endswith(".safetensors"):
                    file["lfs"] = {"sha256": hashlib.sha256(stated).hexdigest(), "size": size, "pointerSize": 134}
                siblings.append(file)
        return {"id": repository, "sha": REVISION, "siblings": siblings, "cardData": self.card, "tags": []}

    def fetched(self, path: str) -> int:
        return sum(method == "GET" and where == path for method, where, _ in self.requests)


def manifest_of(files: list[dict], **source: object) -> Manifest:
    table = {
        "name": "Base",
        "type": "model",
        "repository": "someone/base",
        "revision": REVISION,
        "mirrors": [],
        "licence": "A Licence",
        "licence_page": "https://example.org/licence",
        "must_accept": False,
        "files": files,
    }
    return Manifest(source=[table | source])


def entry(path: str, content: bytes | None = None, **values: object) -> dict:
    known = {} if content is None else {"sha256": hashlib.sha256(content).hexdigest()}
    return {"path": path, "remote": path, "megabytes": 0} | known | values


def leftovers(cache: Cache) -> list[str]:
    """Every file in the cache but the lock and the downloader's own notes."""
    found = (
        path
        for path in cache.root.rglob("*")
        if path.is_file() and ".cache" not in path.parts and path.suffix != ".lock" and path.name != ".lock"
    )
    return sorted(str(path.relative_to(cache.root)) for path in found)
