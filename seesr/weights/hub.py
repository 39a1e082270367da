"""Downloads the full model into the cache and verifies the checksum of each file."""

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
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] # its home depends on the version
    LocalEntryNotFoundError,
)

from seesr.errors import WeightsError, first_line
from seesr.files import user_name
from seesr.weights.cache import Cache, file_digest, sha256
from seesr.weights.manifest import Location, Manifest, Source, WeightFile

ACCEPT_VARIABLE = "SEESR_ACCEPT_LICENSE"
PULL_COMMAND = "seesr weights pull"
TIMEOUT_SECONDS = 30

OnFile = Callable[[WeightFile, str], None]
"""Called for each file with `fetch` when its download starts, and with `done`."""


def is_accepted() -> bool:
    """Whether `SEESR_ACCEPT_LICENSE` accepts the licences."""
    return os.environ.get(ACCEPT_VARIABLE, "").lower() in ("1", "true", "yes")


def pull(manifest: Manifest, cache: Cache, accepted: bool, on_file: OnFile | None = None) -> None:
    """Fetches the files that the cache lacks; when interrupted, it keeps the finished ones.

    Raises:
        WeightsError: a licence is not accepted, or a file cannot be fetched or has a wrong checksum, and is deleted then.
    """
    missing = {file.path for file in cache.missing(manifest)}
    to_accept = [
        source for source in manifest.source if source.must_accept and any(file.path in missing for file in source.files)
    ]
    unaccepted = [source for source in to_accept if not cache.licences.is_accepted(source.licence, source.licence_page)]
    if unaccepted and not accepted:
        raise WeightsError(
            f"{unaccepted[0].name} is under the {unaccepted[0].licence}; read it at {unaccepted[0].licence_page}, then "
            f"accept it with --accept-license or {ACCEPT_VARIABLE}=1."
        )
    if not missing:
        return
    try:
        for source in unaccepted:
            cache.licences.accept(source.licence, source.licence_page, user_name())
        with cache.lock:
            _remove_partial_files(cache)
            # The process that held the lock may have fetched some of them.
            to_fetch = [(source, file) for source, file in manifest.files if file.path in missing and not cache.has(file)]
            _require_disk_space(cache, sum(file.megabytes for _, file in to_fetch))
            for source, file in to_fetch:
                if on_file:
                    on_file(file, "fetch")
                _fetch(source, file, cache)
                if on_file:
                    on_file(file, "done")
            shutil.rmtree(cache.partial, ignore_errors=True)
    except OSError as error:
        raise WeightsError(f"the cache {cache.root} cannot be written: {error.strerror or error}.") from error


def _require_disk_space(cache: Cache, megabytes: int) -> None:
    """Checks the disk space first, so that hours of downloading do not end with a full disk."""
    partial = sum(path.stat().st_size for path in cache.partial.rglob("*") if path.is_file())
    available = (shutil.disk_usage(cache.root).free + partial) // 1_000_000
    if available < megabytes:
        raise WeightsError(
            f"the missing files need {megabytes / 1000:.1f} GB, but only {available / 1000:.1f} GB are free in "
            f"{cache.root}; free disk space, or set SEESR_CACHE to another folder."
        )


def _remove_partial_files(cache: Cache) -> None:
    """Removes what a killed pull has left; huggingface_hub starts again under another file name."""
    for pattern in ("*.incomplete", ".seesr-*.part"):
        for path in cache.partial.rglob(pattern):
            path.unlink()


def _fetch(source: Source, file: WeightFile, cache: Cache) -> None:
    """Fetches the file from the first location that has it, and adds it to the cache."""
    reasons = []
    for index, location in enumerate(source.locations):
        folder = cache.partial / f"{source.name}-{index}"
        try:
            path, stated = _download(location, file, folder)
        except (HTTPError, OSError, HTTPException, RuntimeError, ImportError, ValueError) as error:
            # ImportError and ValueError: the proxy setting is wrong, or needs a package.
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reasons.append(f"{_address(location)}: {failure_reason(error)}")
            continue
        problem = _checksum_problem(path, file.sha256 or stated)
        if problem:
            path.unlink()
            reasons.append(f"{_address(location)}: {problem}")
            continue
        _add_to_cache(path, file, cache)
        return
    raise WeightsError(
        f"{file.remote} of {source.name} could not be fetched ({'; '.join(reasons)}). "
        f"Finished files stay in {cache.full}; run `{PULL_COMMAND}` again, or give a folder with --weights."
    )


def _add_to_cache(path: Path, file: WeightFile, cache: Cache) -> None:
    if not file.is_legacy:
        cache.add(path, file)
        return
    # Imported here: importing PyTorch takes a second, and only legacy files need it.
    from seesr.weights.convert import convert_legacy

    converted, digest = path.with_suffix(".safetensors"), file.sha256 or sha256(path)
    try:
        convert_legacy(path, converted, tuple(file.drop))
        cache.add(converted, file, digest)
    except WeightsError:
        path.unlink()
        raise
    finally:
        converted.unlink(missing_ok=True)
    path.unlink()  # only now, so that an interrupted conversion does not lose the download


def _download(location: Location, file: WeightFile, folder: Path) -> tuple[Path, str | None]:
    """The downloaded file, and the digest that the location states for it."""
    if location.type == "url":
        address = "/".join(part for part in (location.repository, location.revision, quote(file.remote)) if part)
        target = folder / file.remote
        if not target.is_file() or _checksum_problem(target, file.sha256):  # otherwise fetched before, but not converted
            _download_url(address, target)
        return target, None
    request = {
        "repo_id": location.repository,
        "filename": file.remote,
        "repo_type": location.type,
        "revision": location.revision,
        "endpoint": hub_endpoint(),
    }
    stated = get_hf_file_metadata(hf_hub_url(**request)).etag
    return Path(hf_hub_download(**request, local_dir=folder)), stated


def _download_url(address: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (OSError, HTTPException):
        target.unlink(missing_ok=True)
        raise


def _checksum_problem(path: Path, expected: str | None) -> str | None:
    """The problem if the digest of the file is not `expected`, or if that is not a sha256 or sha1."""
    if expected is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", expected):
        return "no checksum is known for this file"
    actual = file_digest(path, expected)
    return None if actual == expected else f"its digest is {actual[:12]}... instead of {expected[:12]}..."


def _address(location: Location) -> str:
    if location.type == "url":
        return location.repository
    return f"{hub_endpoint()}/{'spaces/' if location.type == 'space' else ''}{location.repository}"


def hub_endpoint() -> str:
    """The address of the hub or, from `HF_ENDPOINT`, of its mirror.

    Raises:
        WeightsError: `HF_ENDPOINT` is not an address.
    """
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    try:
        url = urlsplit(address)
        is_valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or not address.isprintable() or " " in address:
        raise WeightsError(f"HF_ENDPOINT is {address!r}; it must be an address like https://huggingface.co.")
    return address


def failure_reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, GatedRepoError):
        return "it requires an account; accept its terms there and set HF_TOKEN"
    if isinstance(error, HfHubHTTPError):
        return f"the server answered {error.response.status_code}"
    if isinstance(error, urllib.request.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, LocalEntryNotFoundError):
        return "no connection"
    return first_line(getattr(error, "reason", None) or error)
