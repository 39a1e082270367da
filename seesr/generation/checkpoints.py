"""Text-to-image checkpoints, folders and single files: which one is used, what it states of itself, and its networks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from seesr.autoencoder.vae import load_vae
from seesr.components import NetworkSpec
from seesr.diffusion.text import PromptEncoder, load_prompt_encoder
from seesr.errors import OptionError, WeightsError
from seesr.generation.checkpoint_facts import (
    CHECKPOINT_VARIABLE,
    CheckpointDefaults,
    is_base,
    native_latents,
    read_checkpoint_defaults,
)
from seesr.generation.ldm_layout import LATENT_CHANNELS, NATIVE_LATENTS, NATIVE_LATENTS_OF_V
from seesr.generation.library import (
    BASE_FOLDER,
    CHECKPOINTS,
    FULL,
    PICTOGRAMS,
    REQUIRED_FOLDERS,
    find_model,
    missing_file,
    require_no_code,
    require_safetensors,
)
from seesr.generation.samplers import SAMPLERS
from seesr.generation.single_file import EPSILON, SCHEDULER, V_PREDICTION, SingleFile
from seesr.generation.vaes import VAESource, resolve_vae
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.header import read_header
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import TINY, folder_digest
from seesr.weights.state_dict import load_network

WORDS = "words.txt"
"""The file of a checkpoint's folder with the words for what it can draw, one a line, where these are few."""
CLASSES = {
    "model_index.json": ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    "unet/config.json": ("UNet2DConditionModel",),
    "vae/config.json": ("AutoencoderKL",),
}
"""What a folder may say that it is, where it says something; another model could not be drawn with."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with `model_index.json`, as diffusers writes it, or SD-Turbo of a weights folder for upscaling."""

    root: Path
    name: str
    vae: VAESource | None = None
    """In place of its own."""
    prediction_type: str | None = None
    """What the UNet predicts, `epsilon` or `v_prediction`, in place of what it states itself."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of it with every picture."""
        return ()

    def notes_on(self, prompt: str) -> Sequence[str]:
        """What the user should know of a prompt: that it has none of the `words`."""
        said = set(re.findall(r"\w+", prompt.lower()))
        if not said or not self.words or said & self.words:
            return ()
        return (f"{self.name} knows no word of the prompt: what it draws is left to chance",)

    @cached_property
    def words(self) -> frozenset[str]:
        """For what the checkpoint can draw, in lower case, from `words.txt`; none if the folder has no such file."""
        path = self.root / WORDS
        return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()

    @property
    def is_base(self) -> bool:
        """Whether it is SD-Turbo of a weights folder for upscaling, which was trained for one step without guidance."""
        return is_base(self.root)

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
        return read_checkpoint_defaults(self.root)

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The original config, from which each job makes its own scheduler."""
        config = read_config(self.root / "scheduler" / "scheduler_config.json")
        return config | ({"prediction_type": self.prediction_type} if self.prediction_type else {})

    @property
    def default_sampler(self) -> str:
        """The name of the sampler that is used where none is asked for."""
        if self.defaults.sampler is not None:
            return self.defaults.sampler
        name = self.scheduler_config.get("_class_name")
        return next((sampler.name for sampler in SAMPLERS if sampler.scheduler == name), "DDIM")

    def native_side(self, factor: int) -> int:
        """The side in pixels that it was trained for; `factor` is the pixels for each latent pixel."""
        return native_latents(self.root) * factor

    def networks(self, dtype: torch.dtype) -> list[NetworkSpec]:
        """How its networks are read, in the order in which they are loaded."""
        return [
            NetworkSpec("vae", lambda: self._load_vae(dtype), contiguous_on_cuda=True, compiled_on_gpu=True),
            NetworkSpec(
                "unet",
                lambda: self._load_unet(dtype),
                compiled_on_cpu=True,
                compiled_on_gpu=True,
                has_denoiser_attention=True,
            ),
            NetworkSpec("prompt_encoder", lambda: self._load_prompt_encoder(dtype)),
        ]

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that its UNet was trained on."""
        return read_config(self.root / "vae" / "config.json").get("latent_channels", LATENT_CHANNELS)

    def _load_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        if self.vae is None:
            return self._load_own_vae(dtype)
        vae = self.vae.load(dtype)
        if (channels := vae.config.latent_channels) != self.latent_channels:
            wanted = f"{self.name} was trained on {self.latent_channels}"
            raise WeightsError(f"the VAE {self.vae.name} has latents of {channels} channels, and {wanted}; use another.")
        return vae

    def _load_own_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        return load_vae(self.root / "vae", dtype)

    def _load_unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        def build(config: dict[str, Any]) -> UNet2DConditionModel:
            # Of inpainting alone, for instance, it takes the mask and the masked picture besides.
            if config.get("in_channels") != self.latent_channels:
                raise WeightsError(
                    f"{self.root}/unet takes {config.get('in_channels')} channels, and latents have "
                    f"{self.latent_channels}: it is for another task than text to image."
                )
            with torch.device("meta"):
                return UNet2DConditionModel.from_config(config).eval()

        return load_network(self.root / "unet", build, dtype)

    def _load_prompt_encoder(self, dtype: torch.dtype) -> PromptEncoder:
        return load_prompt_encoder(self.root, dtype)


@dataclass(frozen=True)
class FileCheckpoint(Checkpoint):
    """A single safetensors file of SD 1 or SD 2."""

    @cached_property
    def file(self) -> SingleFile:
        return SingleFile(self.root)

    @property
    def notes(self) -> Sequence[str]:
        if self.prediction_type or self.file.prediction_type:
            return ()
        choice = f"{EPSILON} was assumed; if this is noise, give --prediction {V_PREDICTION}"
        return (f"{self.name} does not say what its UNet predicts: {choice}",)

    @property
    def is_base(self) -> bool:
        return False

    @cached_property
    def digest(self) -> str:
        return self.file.digest

    @cached_property
    def defaults(self) -> CheckpointDefaults:
        return CheckpointDefaults()

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        return SCHEDULER | {"prediction_type": self.prediction_type or self.file.prediction_type or EPSILON}

    def native_side(self, factor: int) -> int:
        is_larger = self.file.is_sd2 and self.scheduler_config["prediction_type"] == V_PREDICTION
        return (NATIVE_LATENTS_OF_V if is_larger else NATIVE_LATENTS) * factor

    @property
    def latent_channels(self) -> int:
        return LATENT_CHANNELS

    def _load_own_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        return self.file.load_vae(dtype)

    def _load_unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        return self.file.load_unet(dtype)

    def _load_prompt_encoder(self, dtype: torch.dtype) -> PromptEncoder:
        return self.file.load_prompt_encoder(dtype)


def resolve_checkpoint(
    name: str | os.PathLike[str] | None = None,
    vae: str | os.PathLike[str] | None = None,
    prediction: str | None = None,
) -> Checkpoint:
    """The checkpoint `name`, else `SEESR_CHECKPOINT`, else the full model's base if it is cached, else the embedded one.

    Args:
        name: `pictograms`, `full`, a folder in diffusers' layout, a safetensors file of SD 1 or SD 2, or the name of one of
            these in `models/checkpoints`.
        vae: a VAE in place of its own, see `resolve_vae`.
        prediction: `epsilon` or `v_prediction`, in place of what it states itself.

    Raises:
        OptionError: it is the base of the embedded upscaling model, which never learnt to draw; the VAE is unknown; the
            prediction is none.
        WeightsError: it is not a checkpoint, or of a kind that cannot be used.
    """
    if prediction not in (None, EPSILON, V_PREDICTION):
        raise OptionError(f"unknown prediction {prediction!r}; valid predictions: {EPSILON}, {V_PREDICTION}.")
    source = None if vae is None else resolve_vae(vae)
    found = replace(_find(name), vae=source, prediction_type=prediction)
    if isinstance(found, FileCheckpoint):
        found.file.check(needs_vae=source is None)
    return found


def _find(name: str | os.PathLike[str] | None) -> Checkpoint:
    name = name or os.environ.get(CHECKPOINT_VARIABLE) or None
    full = Cache.default().full / BASE_FOLDER
    if name is None:
        name = FULL if not missing_file(full) else PICTOGRAMS
    if name == FULL:
        if missing := missing_file(full):
            raise WeightsError(
                f"the full model is not complete: {full / missing} is missing; `seesr weights pull` fetches it."
            )
        return Checkpoint(full, "SD-Turbo (cache)")
    root = beside_package(PICTOGRAMS) if name == PICTOGRAMS else find_model(name, CHECKPOINTS) or Path(name)
    if root.resolve() in (beside_package(TINY).resolve(), (beside_package(TINY) / BASE_FOLDER).resolve()) or name == TINY:
        raise OptionError(f"the base of the embedded upscaling model never learnt to draw; use --checkpoint {PICTOGRAMS}.")
    if root.is_file():
        _check_file(root)
        return FileCheckpoint(root, root.stem)
    if missing := missing_file(root):
        _check_classes(root)  # of another family of checkpoints, whose folders have other names
        raise WeightsError(f"{root} is not a checkpoint in diffusers' folder layout: {missing} is missing.")
    checkpoint = Checkpoint(root, f"{PICTOGRAMS} (embedded)" if name == PICTOGRAMS else root.name)
    _check_classes(root)
    _check_files(checkpoint)
    return checkpoint


def _check_file(path: Path) -> None:
    """Raises WeightsError if a file is not of safetensors, by its content, whatever its name."""
    try:
        read_header(path)
    except WeightsError as error:
        danger = "a file of another kind may run code when it is read"
        sentence = f"{path} is not a whole safetensors file, and {danger}; get the checkpoint as safetensors."
        raise WeightsError(sentence) from error


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
    require_no_code(root, str(root))
    for name in () if checkpoint.is_base else ("unet", "vae", "text_encoder"):
        require_safetensors(root / name, str(root / name))
