"""What a checkpoint states of itself, without PyTorch and without its weights being read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seesr.generation.library import (
    BASE_FOLDER,
    CHECKPOINTS,
    FULL,
    PICTOGRAMS,
    ModelPlace,
    matching,
    missing_file,
    model_folders,
    model_places,
)
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import DEFAULTS_FILE, read_defaults

CHECKPOINT_VARIABLE = "SEESR_CHECKPOINT"


@dataclass(frozen=True)
class CheckpointDefaults:
    """What a checkpoint asks for where the user sets nothing, from `seesr.json` in its folder."""

    dtype: str | None = None
    """The dtype for `auto`."""
    steps: int = 20
    guidance_scale: float = 7.0
    sampler: str | None = None
    """None is that of its scheduler config."""
    largest_side: int | None = None
    """Pixels of a side beyond which its pictures fall apart, so that larger ones are enlarged from smaller ones."""


def known_checkpoints(models: Path) -> Iterator[ModelPlace]:
    """The checkpoints that jobs may name: the full model's base where the cache has it, the embedded one, the user's.

    Args:
        models: the folder `models` of the data folder.
    """
    full, names = Cache.default().full / BASE_FOLDER, {FULL, PICTOGRAMS}
    if not missing_file(full):
        yield ModelPlace(FULL, full)
    yield ModelPlace(PICTOGRAMS, beside_package(PICTOGRAMS))
    for place in (place for folder in model_folders(CHECKPOINTS, models) for place in model_places(folder)):
        if place.name not in names:
            names.add(place.name)
            yield place


def default_checkpoint(models: Path) -> ModelPlace:
    """That of jobs that name none: `SEESR_CHECKPOINT`, else the first of `known_checkpoints`."""
    places, name = [*known_checkpoints(models)], os.environ.get(CHECKPOINT_VARIABLE) or ""
    found = next(iter(matching(places, name)), None)
    if found is None and name and Path(name).exists():
        return ModelPlace(Path(name).name, Path(name))
    return found or places[0]


def read_checkpoint_defaults(root: Path) -> CheckpointDefaults:
    """The defaults of a folder or a single file.

    Raises:
        WeightsError: a key in the folder's `seesr.json` is unknown or a value cannot be.
    """
    path = root / DEFAULTS_FILE
    if not path.exists():
        return CheckpointDefaults(steps=1, guidance_scale=1.0) if is_base(root) else CheckpointDefaults()
    return CheckpointDefaults(**read_defaults(path, CheckpointDefaults))


def native_latents(root: Path) -> int:
    """Latent pixels of the side that a folder's checkpoint was trained for.

    Raises:
        WeightsError: its config is missing or damaged.
    """
    return int(read_config(root / "unet" / "config.json").get("sample_size", 64))


def native_side(root: Path) -> int | None:
    """The same in pixels; None of a single file, which does not always say it.

    Raises:
        WeightsError: as `native_latents`.
    """
    if not root.is_dir():
        return None
    levels = read_config(root / "vae" / "config.json").get("block_out_channels", (0,) * 4)
    return native_latents(root) << (len(levels) - 1)


def is_base(root: Path) -> bool:
    """Whether it is SD-Turbo of a weights folder for upscaling, which was trained for one step without guidance."""
    return root.name == BASE_FOLDER and (root.parent / "seesr").is_dir()
