"""Text-to-image checkpoints in diffusers' folder layout: which one is used, what it states of itself, and its networks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from seesr.autoencoder.vae import load_vae
from seesr.components import NetworkSpec
from seesr.diffusion.text import load_prompt_encoder
from seesr.errors import OptionError, WeightsError
from seesr.generation.samplers import SAMPLERS
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import DEFAULTS_FILE, TINY, folder_digest, read_defaults
from seesr.weights.state_dict import load_network

PICTOGRAMS = "pictograms"
"""The embedded checkpoint."""
BASE_FOLDER = "sd-turbo"
"""Where a weights folder for upscaling holds its text-to-image base."""
CHECKPOINT_VARIABLE = "SEESR_CHECKPOINT"
FULL = "full"
REQUIRED = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer",
    "scheduler/scheduler_config.json",
)
REQUIRED_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


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


@dataclass(frozen=True)
class Checkpoint:
    """A folder with `model_index.json`, as diffusers writes it, or SD-Turbo of a weights folder for upscaling."""

    root: Path
    name: str

    @property
    def is_base(self) -> bool:
        """Whether it is SD-Turbo of a weights folder for upscaling, which was trained for one step without guidance."""
        return self.root.name == BASE_FOLDER and (self.root.parent / "seesr").is_dir()

    @cached_property
    def digest(self) -> str:
        """A few digits that tell its weights from others (`folder_digest`)."""
        return folder_digest(self.root, REQUIRED_FOLDERS)

    @cached_property
    def defaults(self) -> CheckpointDefaults:
        """The defaults in the folder's `seesr.json`.

        Raises:
            WeightsError: a key is unknown or a value cannot be.
        """
        path = self.root / DEFAULTS_FILE
        if not path.exists():
            return CheckpointDefaults(steps=1, guidance_scale=1.0) if self.is_base else CheckpointDefaults()
        return CheckpointDefaults(**read_defaults(path, CheckpointDefaults))

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The original config, from which each job makes its own scheduler."""
        return read_config(self.root / "scheduler" / "scheduler_config.json")

    @property
    def default_sampler(self) -> str:
        """The name of the sampler that is used where none is asked for."""
        if self.defaults.sampler is not None:
            return self.defaults.sampler
        name = self.scheduler_config.get("_class_name")
        return next((sampler.name for sampler in SAMPLERS if sampler.scheduler == name), "DDIM")

    def native_side(self, factor: int) -> int:
        """The side in pixels that it was trained for; `factor` is the pixels for each latent pixel."""
        return int(read_config(self.root / "unet" / "config.json").get("sample_size", 64)) * factor

    def networks(self, dtype: torch.dtype) -> list[NetworkSpec]:
        """How its networks are read, in the order in which they are loaded."""
        return [
            NetworkSpec("vae", lambda: load_vae(self.root / "vae", dtype), contiguous_on_cuda=True, compiled_on_gpu=True),
            NetworkSpec("unet", self._unet(dtype), compiled_on_cpu=True, compiled_on_gpu=True, has_denoiser_attention=True),
            NetworkSpec("prompt_encoder", lambda: load_prompt_encoder(self.root, dtype)),
        ]

    def _unet(self, dtype: torch.dtype) -> Any:
        def build(config: dict[str, Any]) -> UNet2DConditionModel:
            # Of inpainting alone, for instance, it takes the mask and the masked picture besides.
            latents = read_config(self.root / "vae" / "config.json").get("latent_channels", 4)
            if config.get("in_channels") != latents:
                raise WeightsError(
                    f"{self.root}/unet takes {config.get('in_channels')} channels, and latents have {latents}: it is for "
                    "another task than text to image."
                )
            with torch.device("meta"):
                return UNet2DConditionModel.from_config(config).eval()

        return lambda: load_network(self.root / "unet", build, dtype)


def resolve_checkpoint(name: str | os.PathLike[str] | None = None) -> Checkpoint:
    """The checkpoint `name`, else `SEESR_CHECKPOINT`, else the full model's base if it is cached, else the embedded one.

    Args:
        name: `pictograms`, `full`, or a folder in diffusers' layout.

    Raises:
        OptionError: it is the base of the embedded upscaling model, which never learnt to draw.
        WeightsError: it is not a checkpoint.
    """
    name = name or os.environ.get(CHECKPOINT_VARIABLE) or None
    full = Cache.default().full / BASE_FOLDER
    if name is None:
        name = FULL if not _missing(full) else PICTOGRAMS
    if name == FULL:
        if missing := _missing(full):
            raise WeightsError(
                f"the full model is not complete: {full / missing} is missing; `seesr weights pull` fetches it."
            )
        return Checkpoint(full, "SD-Turbo (cache)")
    root = beside_package(PICTOGRAMS) if name == PICTOGRAMS else Path(name)
    if root.resolve() in (beside_package(TINY).resolve(), (beside_package(TINY) / BASE_FOLDER).resolve()) or name == TINY:
        raise OptionError(f"the base of the embedded upscaling model never learnt to draw; use --checkpoint {PICTOGRAMS}.")
    if missing := _missing(root):
        raise WeightsError(f"{root} is not a checkpoint in diffusers' folder layout: {missing} is missing.")
    return Checkpoint(root, f"{PICTOGRAMS} (embedded)" if name == PICTOGRAMS else root.name)


def _missing(root: Path) -> str:
    """The first required file that a folder lacks."""
    return next((path for path in REQUIRED if not (root / path).exists()), "")
