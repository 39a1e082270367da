"""Fetches the full model into the cache, each file checked before it counts."""

from __future__ import annotations

import errno
import os
import re
import shutil
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from seesr.errors import WeightsError
from seesr.weights.cache import Cache, git_blob_sha1, sha256
from seesr.weights.manifest import File, Manifest, Place, Source

ACCEPT_VARIABLE = "SEESR_ACCEPT_LICENSE"
COMMAND = "seesr weights pull"
TIMEOUT = 30

Tell = Callable[[File, str], None]
"""Told of each file what is done with it."""


def is_accepted() -> bool:
    """Whether `SEESR_ACCEPT_LICENSE` says yes."""
    return os.environ.get(ACCEPT_VARIABLE, "").lower() in ("1", "true", "yes")


def pull(manifest: Manifest, cache: Cache, accepted: bool, tell: Tell | None = None) -> None:
    """Fetches what the cache lacks; finished files stay when it is interrupted.

    Raises:
        WeightsError: a licence is not accepted, or a file cannot be had, or is not what it should be; nothing of such a
            file stays.
    """
    missing = {file.path for file in cache.missing(manifest)}
    unaccepted = [
        source for source in manifest.source if source.must_accept and any(file.path in missing for file in source.files)
    ]
    if unaccepted and not accepted:
        raise WeightsError(
            f"{unaccepted[0].name} is under the {unaccepted[0].licence}; read it at {unaccepted[0].licence_page}, then "
            f"accept it with --accept-license or {ACCEPT_VARIABLE}=1."
        )
    if not missing:
        return
    try:
        with cache.lock:
            _clear_broken_off(cache)
            # Who held the lock may have fetched them.
            wanted = [(source, file) for source, file in manifest.files if file.path in missing and not cache.has(file)]
            _require_room(cache, sum(file.megabytes for _, file in wanted))
            for source, file in wanted:
                if tell:
                    tell(file, "fetch")
                _fetch(source, file, cache)
                if tell:
                    tell(file, "done")
            shutil.rmtree(cache.partial, ignore_errors=True)
    except OSError as error:
        raise WeightsError(f"the cache {cache.root} cannot be written: {error.strerror or error}.") from error


def _require_room(cache: Cache, megabytes: int) -> None:
    """Hours of fetching should not end with a full disk."""
    begun = sum(path.stat().st_size for path in cache.partial.rglob("*") if path.is_file())
    room = (shutil.disk_usage(cache.root).free + begun) // 1_000_000
    if room < megabytes:
        raise WeightsError(
            f"the files that are missing take {megabytes / 1000:.1f} GB, and there is room for {room / 1000:.1f} GB in "
            f"{cache.root}; make room, or name another folder in SEESR_CACHE."
        )


def _clear_broken_off(cache: Cache) -> None:
    """What a pull that was killed has left: huggingface_hub begins anew under another name."""
    for pattern in ("*.incomplete", ".seesr-*.part"):
        for path in cache.partial.rglob(pattern):
            path.unlink()


def _fetch(source: Source, file: File, cache: Cache) -> None:
    """From the first place that has it."""
    reasons = []
    for number, place in enumerate(source.places):
        folder = cache.partial / f"{source.name}-{number}"
        try:
            found, expected = _download(place, file, folder)
        except (HTTPError, OSError, HTTPException, RuntimeError, ImportError, ValueError) as error:
            # The last two: a proxy that is set wrongly, or needs a package.
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reasons.append(f"{_address(place)}: {_why(error)}")
            continue
        wrong = _difference(found, file.sha256 or expected)
        if wrong:
            found.unlink()
            reasons.append(f"{_address(place)}: {wrong}")
            continue
        _keep(found, file, cache)
        return
    raise WeightsError(
        f"{file.remote} of {source.name} could not be fetched ({'; '.join(reasons)}). "
        f"Finished files stay in {cache.full}; run `{COMMAND}` again, or give a folder with --weights."
    )


def _keep(found: Path, file: File, cache: Cache) -> None:
    if not file.is_legacy:
        cache.keep(found, file)
        return
    # Here: PyTorch takes a second to import, and only legacy files need it.
    from seesr.weights.convert import convert_legacy

    converted, digest = found.with_suffix(".safetensors"), file.sha256 or sha256(found)
    try:
        convert_legacy(found, converted, tuple(file.drop))
        cache.keep(converted, file, digest)
    except WeightsError:
        found.unlink()
        raise
    finally:
        converted.unlink(missing_ok=True)
    found.unlink()  # not before: what was fetched stays when the conversion is interrupted


def _download(place: Place, file: File, folder: Path) -> tuple[Path, str | None]:
    """The file, and the digest that the place itself states."""
    if place.type == "url":
        address = "/".join(part for part in (place.repository, place.revision, quote(file.remote)) if part)
        target = folder / file.remote
        if not target.is_file() or _difference(target, file.sha256):  # else fetched before, and not converted yet
            _download_url(address, target)
        return target, None
    where = {
        "repo_id": place.repository,
        "filename": file.remote,
        "repo_type": place.type,
        "revision": place.revision,
        "endpoint": _endpoint(),
    }
    stated = get_hf_file_metadata(hf_hub_url(**where)).etag
    return Path(hf_hub_download(**where, local_dir=folder)), stated


def _download_url(address: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (OSError, HTTPException):
        target.unlink(missing_ok=True)
        raise


def _difference(found: Path, expected: str | None) -> str | None:
    """What is wrong with a file whose digest should be `expected`; a digest of unknown kind proves nothing."""
    if expected is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", expected):
        return "no checksum is known for this file"
    actual = sha256(found) if len(expected) == 64 else git_blob_sha1(found)
    return None if actual == expected else f"its digest is {actual[:12]}... instead of {expected[:12]}..."


def _address(place: Place) -> str:
    if place.type == "url":
        return place.repository
    return f"{_endpoint()}/{'spaces/' if place.type == 'space' else ''}{place.repository}"


def _endpoint() -> str:
    """The hub, or what stands in for it.

    Raises:
        WeightsError: `HF_ENDPOINT` is no address.
    """
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not address.isprintable() or " " in address:
        raise WeightsError(f"HF_ENDPOINT is {address!r}; it must be an address like https://huggingface.co.")
    return address


def _why(error: Exception) -> str:
    """The reason in a few words."""
    if isinstance(error, GatedRepoError):
        return "it asks for an account; accept its terms there and set HF_TOKEN"
    if isinstance(error, HfHubHTTPError):
        return f"the server answered {error.response.status_code}"
    if isinstance(error, urllib.request.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, LocalEntryNotFoundError):
        return "no connection"
    reason = getattr(error, "reason", None) or error
    text = str(reason).splitlines()[0] if str(reason) else type(error).__name__
    return text.rstrip(".")
