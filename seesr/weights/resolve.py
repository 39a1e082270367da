"""Finds the folder of weights to load: what the user names, the full model in the cache, or the embedded small one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from seesr.errors import WeightsError
from seesr.options import DTYPE_NAMES, Options
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.hub import ACCEPT_VARIABLE, COMMAND, is_accepted, pull
from seesr.weights.manifest import File, beside_package, read_manifest

PARTS = ("sd-turbo", "seesr", "ram")
"""Sub-folders of a weights folder in the published layout."""
CLEANER = "cleaner"
"""Sub-folder that a weights folder may have besides."""
ENVIRONMENT_VARIABLE = "SEESR_WEIGHTS"
FULL, TINY = "full", "tiny"
DEFAULTS_FILE = "seesr.json"
"""Optional file of a weights folder."""
MAX_MARGIN = 8
"""Latents."""


@dataclass(frozen=True)
class ModelDefaults:
    """What weights ask for that differs from the published model, as `seesr.json` in their folder says; mostly nothing."""

    dtype: str | None = None
    """The precision where none is asked for."""
    margin: int = 0
    """Latents around the picture, for networks that never learnt what a picture's border looks like to a convolution."""
    steps: int = 2
    """Denoising steps where none are asked for."""


@dataclass(frozen=True)
class Weights:
    """A folder of weights."""

    root: Path
    name: str
    """What results, and files made of them, call it: the folder without its path, `full (cache)` or `tiny (embedded)`."""

    @property
    def defaults(self) -> ModelDefaults:
        """What the folder's `seesr.json` says.

        Raises:
            WeightsError: it says what cannot be.
        """
        path = self.root / DEFAULTS_FILE
        said, known = read_config(path) if path.exists() else {}, [field.name for field in fields(ModelDefaults)]
        if unknown := said.keys() - known:
            raise WeightsError(f"{path} holds unknown key {min(unknown)!r}; valid keys: {', '.join(known)}.")
        defaults = ModelDefaults(**said)
        if defaults.dtype not in (None, *DTYPE_NAMES):
            raise WeightsError(f"{path} asks for dtype {defaults.dtype!r}; valid: {', '.join(DTYPE_NAMES)}.")
        for name, low, high in (("margin", 0, MAX_MARGIN), ("steps", *Options.bounds("steps"))):
            value = getattr(defaults, name)
            if type(value) is not int or not low <= value <= high:
                raise WeightsError(f"{path} asks for {name} {value!r}; it is a whole number, {low} to {high}.")
        return defaults


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
