"""Finds the folder of weights to load: what the user names, the full model in the cache, or the embedded small one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from seesr.errors import WeightsError
from seesr.runtime.device import DTYPES
from seesr.weights.cache import Cache
from seesr.weights.files import read_config
from seesr.weights.manifest import File, beside_package, read_manifest
from seesr.weights.pull import ACCEPT_VARIABLE, COMMAND, is_accepted, pull

PARTS = ("sd-turbo", "seesr", "ram")
"""Sub-folders of a weights folder in the published layout."""
CLEANER = "cleaner"
"""Sub-folder that a weights folder may have besides."""
ENVIRONMENT_VARIABLE = "SEESR_WEIGHTS"
FULL, TINY = "full", "tiny"
WISHES = "seesr.json"
"""Optional file of a weights folder."""
MOST_MARGIN = 8


@dataclass(frozen=True)
class Wishes:
    """What weights want that differs from the published model's, as `seesr.json` in their folder says; mostly nothing."""

    dtype: str | None = None
    """The precision where none is asked for."""
    margin: int = 0
    """Latents around the picture, for networks that never learnt what a picture's border looks like to a convolution."""


@dataclass(frozen=True)
class Weights:
    """A folder of weights."""

    root: Path
    name: str
    """What results, and files made of them, call it: the folder without its path, `full (cache)` or `tiny (embedded)`."""

    @property
    def wishes(self) -> Wishes:
        """What the folder's `seesr.json` says.

        Raises:
            WeightsError: it says what cannot be.
        """
        path = self.root / WISHES
        said = read_config(path) if path.exists() else {}
        dtype, margin = said.get("dtype"), said.get("margin", 0)
        if dtype not in (None, *DTYPES):
            raise WeightsError(f"{path} wants dtype {dtype!r}; there are {', '.join(DTYPES)}.")
        if type(margin) is not int or not 0 <= margin <= MOST_MARGIN:
            raise WeightsError(f"{path} wants margin {margin!r}; it is a whole number of latents, 0 to {MOST_MARGIN}.")
        return Wishes(dtype, margin)


def resolve_weights(given: str | os.PathLike[str] | None = None) -> Weights:
    """The weights named by `given`, else by `SEESR_WEIGHTS`, else the full model if the cache has it, else the embedded one.

    A name is a folder, `full` (the cache, and when the licences are accepted the hub) or `tiny` (the embedded model).

    Raises:
        WeightsError: the folder named does not exist or lacks a part, or the full model cannot be had.
    """
    named = str(given or os.environ.get(ENVIRONMENT_VARIABLE) or "")
    if named == FULL:
        return _full()
    if named and named != TINY:
        return _folder(Path(named))
    cache = Cache.default()
    if not named and not cache.missing(read_manifest()):
        return Weights(cache.full, "full (cache)")
    return Weights(beside_package(TINY), "tiny (embedded)")


def _folder(root: Path) -> Weights:
    missing = [part for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise WeightsError(
            f"{root} is no weights folder: {', '.join(missing)} is missing. It must hold the folders {', '.join(PARTS)}; "
            f"`{COMMAND}` fetches the published model, and `{TINY}` or nothing stands for the embedded one."
        )
    return Weights(root, root.resolve().name)


def _tell(file: File, what: str) -> None:
    """A line for each file that is fetched: at 17 GB nobody should wonder."""
    if what == "fetch":
        print(f"fetching {file.remote} ({file.megabytes:,.0f} MB)", file=sys.stderr, flush=True)


def _full() -> Weights:
    """The full model from the cache; what is missing there is fetched when its licence is accepted."""
    cache, manifest = Cache.default(), read_manifest()
    missing = cache.missing(manifest)
    if missing and not is_accepted():
        size = sum(file.megabytes for file in missing) / 1000
        raise WeightsError(
            f"the full model is not complete: {len(missing)} of {len(manifest.files)} files are missing in {cache.full} "
            f"(the first is {missing[0].kept_as}). `{COMMAND}` fetches them (about {size:.1f} GB); "
            f"with {ACCEPT_VARIABLE}=1 that happens by itself."
        )
    pull(manifest, cache, accepted=True, tell=_tell)
    return Weights(cache.full, "full (cache)")
