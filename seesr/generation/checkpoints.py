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
from seesr.files import data_folder
from seesr.generation.library import MODELS
from seesr.generation.samplers import SAMPLERS
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.header import read_header
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
CHECKPOINTS = "checkpoints"
"""Folder in `models/` of the user's data folder."""
CLASSES = {
    "model_index.json": ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    "unet/config.json": ("UNet2DConditionModel",),
    "vae/config.json": ("AutoencoderKL",),
}
"""What a folder may say that it is, where it says something; another model could not be drawn with."""
SAFETENSORS = ".safetensors"
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
        name: `pictograms`, `full`, a folder in diffusers' layout, or the name of one in `models/checkpoints`.

    Raises:
        OptionError: it is the base of the embedded upscaling model, which never learnt to draw.
        WeightsError: it is not a checkpoint, or of a kind that cannot be used.
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
    root = beside_package(PICTOGRAMS) if name == PICTOGRAMS else _folder(name)
    if root.resolve() in (beside_package(TINY).resolve(), (beside_package(TINY) / BASE_FOLDER).resolve()) or name == TINY:
        raise OptionError(f"the base of the embedded upscaling model never learnt to draw; use --checkpoint {PICTOGRAMS}.")
    if root.is_file():
        raise WeightsError(_about_file(root))
    if missing := _missing(root):
        _check_classes(root)  # of another family of checkpoints, whose folders have other names
        raise WeightsError(f"{root} is not a checkpoint in diffusers' folder layout: {missing} is missing.")
    checkpoint = Checkpoint(root, f"{PICTOGRAMS} (embedded)" if name == PICTOGRAMS else root.name)
    _check_classes(root)
    _check_files(checkpoint)
    return checkpoint


def _folder(name: str | os.PathLike[str]) -> Path:
    """The folder `name`, else the one of that name among the user's checkpoints."""
    known = data_folder() / MODELS / CHECKPOINTS
    by_name = {path.name: path for path in known.iterdir()} if known.is_dir() else {}
    return Path(name) if Path(name).exists() else by_name.get(str(name), Path(name))


def _about_file(path: Path) -> str:
    """Why a single file is refused: by its content, whatever its name."""
    try:
        read_header(path)
    except WeightsError:
        danger = "a file of another kind may run code when it is read"
        return f"{path} is not a whole safetensors file, and {danger}; get the checkpoint as safetensors."
    return f"{path} is a checkpoint in one file; give a folder in diffusers' layout, to which diffusers' scripts convert it."


def _check_classes(root: Path) -> None:
    """Raises WeightsError if a config names a class that is not one of `CLASSES`."""
    for place, classes in CLASSES.items():
        found = read_config(root / place).get("_class_name", classes[0]) if (root / place).exists() else classes[0]
        if found not in classes:
            what = found if isinstance(found, str) else "a class of its own"
            raise WeightsError(f"{root / place} asks for {what}; only {', '.join(classes)}, of SD 1 and SD 2, can be used.")


def _check_files(checkpoint: Checkpoint) -> None:
    """Raises WeightsError if a folder holds code, or weights that are not safetensors alone.

    SD-Turbo of a weights folder for upscaling has what its manifest allows.
    """
    root = checkpoint.root
    if code := next(root.rglob("*.py"), None):
        raise WeightsError(f"{root} holds code ({code.relative_to(root)}), which is never run; use a checkpoint without.")
    for name in () if checkpoint.is_base else ("unet", "vae", "text_encoder"):
        if not any((root / name).glob(f"*{SAFETENSORS}")):
            raise WeightsError(
                f"{root / name} has no {SAFETENSORS} file, and no other is read; get the checkpoint as safetensors."
            )


def _missing(root: Path) -> str:
    """The first required file that a folder lacks."""
    return next((path for path in REQUIRED if not (root / path).exists()), "")
