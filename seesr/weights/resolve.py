"""Chooses the weights folder to load: the one that the user names, the full model in the cache, or the embedded model."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from seesr.errors import WeightsError
from seesr.options import DTYPE_NAMES, Options
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.hub import ACCEPT_VARIABLE, PULL_COMMAND, is_accepted, pull
from seesr.weights.manifest import WeightFile, beside_package, read_manifest

REQUIRED_FOLDERS = ("sd-turbo", "seesr", "ram")
"""Subfolders of a weights folder in the published layout."""
CLEANER = "cleaner"
"""Optional subfolder."""
ENVIRONMENT_VARIABLE = "SEESR_WEIGHTS"
FULL, TINY = "full", "tiny"
DEFAULTS_FILE = "seesr.json"
"""Optional file of a weights folder."""
MAX_MARGIN = 8
"""Latent pixels."""
MAX_HASHED_BYTES, END_BYTES = 32 << 20, 1 << 20
"""Of a file that counts with all its content in a digest; of a larger one's beginning and end, which count of it."""
DIGEST_DIGITS = 12


@dataclass(frozen=True)
class ModelDefaults:
    """Defaults that differ from those of the published model, from `seesr.json` in the weights folder; usually none."""

    dtype: str | None = None
    """The dtype for `auto`."""
    margin: int = 0
    """Latent pixels to pad around the picture, for networks that were not trained on the borders of pictures."""
    steps: int = 2
    """Denoising steps if the user sets none."""


@dataclass(frozen=True)
class WeightsFolder:
    """A folder of weights."""

    root: Path
    name: str
    """The name in results and in the files' metadata: the folder's name, `full (cache)` or `tiny (embedded)`."""

    @cached_property
    def defaults(self) -> ModelDefaults:
        """The defaults in the folder's `seesr.json`.

        Raises:
            WeightsError: a key is unknown or a value is not valid.
        """
        path = self.root / DEFAULTS_FILE
        defaults = ModelDefaults(**read_defaults(path, ModelDefaults)) if path.exists() else ModelDefaults()
        ranges: dict[str, tuple[Any, Any]] = {"margin": (0, MAX_MARGIN), "steps": Options.bounds("steps")}
        for name, (low, high) in ranges.items():
            value = getattr(defaults, name)
            if type(value) is not int or not low <= value <= high:
                raise WeightsError(f"{path} has {name} {value!r}; it must be a whole number from {low} to {high}.")
        return defaults

    @cached_property
    def digest(self) -> str:
        """A few digits that tell these weights from others, also from others of the same name; see `folder_digest`."""
        return folder_digest(self.root, (*REQUIRED_FOLDERS, CLEANER))


def read_defaults(path: Path, kind: type) -> dict[str, Any]:
    """The values in a `seesr.json` whose keys are the fields of the dataclass `kind`.

    Raises:
        WeightsError: a key is unknown, or the dtype is none.
    """
    values, keys = read_config(path), [field.name for field in fields(kind)]
    if unknown := values.keys() - keys:
        raise WeightsError(f"{path} holds unknown key {min(unknown)!r}; valid keys: {', '.join(keys)}.")
    if values.get("dtype") not in (None, *DTYPE_NAMES):
        raise WeightsError(f"{path} has dtype {values['dtype']!r}; valid: {', '.join(DTYPE_NAMES)}.")
    return values


def resolve_weights(name: str | os.PathLike[str] | None = None) -> WeightsFolder:
    """The weights called `name`, else `SEESR_WEIGHTS`, else the full model if it is in the cache, else the embedded one.

    A name is a folder, `full` (from the cache, and if its licence is accepted from the hub) or `tiny` (the embedded model).

    Raises:
        WeightsError: the folder does not exist or lacks a subfolder, or the full model cannot be fetched.
    """
    name = str(name or os.environ.get(ENVIRONMENT_VARIABLE) or "")
    if name == FULL:
        return _full()
    if name and name != TINY:
        return _folder(Path(name))
    cache = Cache.default()
    if not name and not cache.missing(read_manifest()):
        return WeightsFolder(cache.full, "full (cache)")
    return WeightsFolder(beside_package(TINY), "tiny (embedded)")


def _folder(root: Path) -> WeightsFolder:
    missing = [folder for folder in REQUIRED_FOLDERS if not (root / folder).is_dir()]
    if missing:
        raise WeightsError(
            f"{root} is not a weights folder: {', '.join(missing)} is missing. It must hold the folders "
            f"{', '.join(REQUIRED_FOLDERS)}; `{PULL_COMMAND}` fetches the published model, and `{TINY}` is the embedded one."
        )
    return WeightsFolder(root, root.resolve().name)


def _print_download(file: WeightFile, event: str) -> None:
    """Prints a line for each file, because 17 GB take a while."""
    if event == "fetch":
        print(f"fetching {file.remote} ({file.megabytes:,.0f} MB)", file=sys.stderr, flush=True)


def _full() -> WeightsFolder:
    """The full model from the cache; missing files are fetched if the licence is accepted."""
    cache, manifest = Cache.default(), read_manifest()
    missing = cache.missing(manifest)
    if missing and not is_accepted():
        size = sum(file.megabytes for file in missing) / 1000
        raise WeightsError(
            f"the full model is not complete: {len(missing)} of {len(manifest.files)} files are missing in {cache.full} "
            f"(the first is {missing[0].cached_path}). `{PULL_COMMAND}` fetches them (about {size:.1f} GB); "
            f"with {ACCEPT_VARIABLE}=1 this happens automatically."
        )
    pull(manifest, cache, accepted=True, on_file=_print_download)
    return WeightsFolder(cache.full, "full (cache)")


def folder_digest(root: Path, subfolders: Iterable[str]) -> str:
    """A few digits that tell the weights in a folder from others.

    They are of a SHA-256 of the path and content of each file in the subfolders, and of `seesr.json`. Of a file above
    32 MiB only the size, the first and the last MiB count, so that gigabytes are not read once more: these hold the names
    and shapes of all tensors, and some of their values. So the digest is no proof that a file is whole; `seesr weights
    verify` is.
    """
    paths = [path for name in subfolders for path in (root / name).rglob("*") if path.is_file()]
    paths += [path for path in [root / DEFAULTS_FILE] if path.is_file()]
    return files_digest({path.relative_to(root).as_posix(): path for path in paths if not path.name.startswith(".")})


def files_digest(paths: Mapping[str, Path]) -> str:
    """As `folder_digest`, of files and the names by which they count."""
    digest = hashlib.sha256()
    for name, path in sorted(paths.items()):
        size = path.stat().st_size
        digest.update(f"{name}\n{size}\n".encode())
        with path.open("rb") as file:
            if size <= MAX_HASHED_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(END_BYTES))
                file.seek(-END_BYTES, os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()[:DIGEST_DIGITS]
