"""The whole way of a picture, from a file to a larger and sharper image."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import decode, encode, load_vae, scale_factor
from seesr.diffusion.denoiser import Denoiser, load_denoiser
from seesr.diffusion.sampler import sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import PromptEncoder, load_prompt_encoder
from seesr.diffusion.tiles import predict_tiled
from seesr.images.colour import adain_fix, wavelet_fix
from seesr.images.decode import ImageSource, Picture, open_picture
from seesr.images.finish import finish
from seesr.images.resize import Sizes, crop, pad, plan_sizes, resize, to_image, to_tensor
from seesr.options import Limits, Options
from seesr.runtime.device import choose_device, choose_dtype, place
from seesr.runtime.stages import Stages
from seesr.tagging.prompt import Tag, TagList, build_prompt, load_tag_list
from seesr.tagging.ram import RAM, load_ram
from seesr.version import __version__
from seesr.weights.resolve import Weights, resolve_weights
from seesr.weights.state_dict import read_config

TILE, TILE_OVERLAP = 96, 32
"""Side and shared part of the diffusion's tiles, in latent pixels."""
COLOR_FIXES = {"wavelet": wavelet_fix, "adain": adain_fix, "none": lambda target, source: target}

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much."""


@dataclass(frozen=True, eq=False)
class Result:
    """An upscaled picture, and what was done to make it."""

    image: Image.Image
    seed: int
    tags: list[Tag]
    prompt: str
    sizes: Sizes
    seconds: dict[str, float]
    """Time of each stage, in the order in which they ran."""
    weights: str
    options: Options
    notes: list[str]
    """What a user would want to know of the input's handling."""

    def settings(self) -> dict[str, Any]:
        """What made the picture, to be written into its file: enough to make it again."""
        return {
            "version": __version__,
            "weights": self.weights,
            **self.options.model_dump(exclude_none=True),
            "seed": self.seed,
            "prompt": self.prompt,
            "words": self.options.prompt,
        }


class Upscaler:
    """Models, loaded once, and the way of a picture through them. Safe to share between threads: one runs at a time."""

    def __init__(
        self,
        vae: AutoencoderKL,
        denoiser: Denoiser,
        prompt_encoder: PromptEncoder,
        ram: RAM,
        tag_list: TagList,
        schedule: NoiseSchedule,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        limits: Limits,
    ) -> None:
        for model in (vae, denoiser, prompt_encoder, ram):
            place(model, device)
        self.vae, self.denoiser, self.prompt_encoder, self.ram = vae, denoiser, prompt_encoder, ram
        self.tag_list, self.schedule = tag_list, schedule
        self.weights, self.device, self.dtype, self.limits = weights, device, dtype, limits
        self._one_at_a_time = threading.Lock()

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        limits: Limits | None = None,
    ) -> Upscaler:
        """Loads the models.

        Args:
            weights: a folder in the published layout; None looks at SEESR_WEIGHTS, then takes the embedded small model.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: auto, float32, bfloat16 or float16.
            limits: what may be asked for; None reads the SEESR_ environment variables.

        Raises:
            WeightsError: files are missing or do not fit.
            OptionError: the device or dtype is not to be had.
        """
        found = resolve_weights(weights)
        on = choose_device(device)
        base, precision = found.root / "sd-turbo", choose_dtype(dtype, on)
        ram = load_ram(found.root / "ram", dtype=precision)
        return cls(
            vae=load_vae(base / "vae", precision),
            denoiser=load_denoiser(found.root, precision),
            prompt_encoder=load_prompt_encoder(base, precision),
            ram=ram,
            tag_list=load_tag_list(found.root / "ram", ram.config.num_tags),
            schedule=NoiseSchedule.from_config(read_config(base / "scheduler" / "scheduler_config.json")),
            weights=found,
            device=on,
            dtype=precision,
            limits=limits or Limits.from_environment(),
        )

    def upscale(
        self,
        image: ImageSource,
        options: Options | None = None,
        progress: Progress | None = None,
        **values: object,
    ) -> Result:
        """Upscales one picture.

        Args:
            image: a path, the bytes of a file, a PIL image, or an array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of uint8.
            options: all options at once; or give them by name: `upscale(image, scale=2, preset="quality")`.
            progress: told of each stage and step.

        Raises:
            InputError: the picture cannot be used.
            OptionError: an option has a value that it cannot have.
        """
        options = options or Options.make(**values)
        tell = progress or (lambda stage, done, total: None)
        with self._one_at_a_time, torch.inference_mode():
            return self._run(image, options, tell)

    def tags(self, image: ImageSource) -> list[Tag]:
        """What RAM sees in a picture, in the order of its tag list."""
        with self._one_at_a_time, torch.inference_mode():
            return self._look(open_picture(image, self.limits))[0]

    def _run(self, source: ImageSource, options: Options, tell: Progress) -> Result:
        stages = Stages()
        seed = secrets.randbits(32) if options.seed is None else options.seed

        with stages.stage("decode"):
            picture = open_picture(source, self.limits)
        with stages.stage("resize") as note:
            sizes = self._plan(picture, options)
            image = note.result(self._to_models(pad(to_tensor(resize(picture.rgb, sizes.working)), sizes)))
        tell("tags", 0, 1)
        with stages.stage("tags") as note:
            tags, image_tokens = self._look(picture)
            note.result(image_tokens)
        with stages.stage("prompt") as note:
            prompt = build_prompt([tag.name for tag in tags] if options.tags else [], options.prompt)
            prompt_embeds = note.result(self.prompt_encoder([prompt]))
        tell("encode", 0, 1)
        with stages.stage("encode") as note:
            latents = note.result(self._start(image, seed))
        with stages.stage("denoise") as note:
            latents = note.result(self._denoise(latents, image, prompt_embeds, image_tokens, options, tell))
        tell("decode", 0, 1)
        with stages.stage("pixels") as note:
            pixels = note.result(decode(self.vae, self._to_models(latents)).float())
        with stages.stage("colour") as note:
            pixels = note.result(COLOR_FIXES[options.color_fix](pixels, image.float()))
        with stages.stage("finish"):
            result = finish(to_image(crop(pixels, sizes)), picture, sizes, options.sharpen)
        tell("done", 1, 1)
        return Result(result, seed, tags, prompt, sizes, stages.seconds, self.weights.name, options, picture.notes)

    def _plan(self, picture: Picture, options: Options) -> Sizes:
        vae_factor = scale_factor(self.vae)
        unet = self.denoiser.unet.config
        return plan_sizes(
            picture.rgb.size,
            options.scale,
            options.max_side,
            minimum=unet.sample_size * vae_factor,
            multiple=vae_factor,
            limits=self.limits,
        )

    def _look(self, picture: Picture) -> tuple[list[Tag], Tensor]:
        """Tags and image tokens `(1, n, 512)` of the picture before it is enlarged, as published."""
        tokens, logits = self.ram(to_tensor(picture.rgb).to(self.device))
        return self.tag_list.choose(logits[0]), tokens

    def _start(self, image: Tensor, seed: int) -> Tensor:
        """The picture's own latents under full noise ("start from LR"), float32."""
        latents = encode(self.vae, image).float()
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
        return self.schedule.add_noise(latents, noise, len(self.schedule.alphas_cumprod) - 1)

    def _denoise(
        self,
        latents: Tensor,
        image: Tensor,
        prompt_embeds: Tensor,
        image_tokens: Tensor,
        options: Options,
        tell: Progress,
    ) -> Tensor:
        def predict_tile(tile: Tensor, timestep: int, tile_image: Tensor) -> Tensor:
            scale = options.conditioning_scale
            return self.denoiser(self._to_models(tile), timestep, tile_image, prompt_embeds, image_tokens, scale).float()

        def predict(noisy: Tensor, timestep: int) -> Tensor:
            return predict_tiled(predict_tile, noisy, timestep, image, TILE, TILE_OVERLAP)

        def progress(step: int, steps: int, _: Tensor) -> None:
            tell("denoise", step, steps)

        return sample(predict, self.schedule, latents, options.steps, progress=progress)

    def _to_models(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)
