"""The baseline: the networks without what makes ours fast, run as the published code of SeeSR runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from scripts.benchmark.contenders import Contender
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.denoiser import load_denoiser
from seesr.diffusion.sampler import sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import load_prompt_encoder
from seesr.images.sizes import Sizes
from seesr.machine.device import dtype_name
from seesr.stages import Stages
from seesr.tagging.prompt import QUALITY_WORDS
from seesr.tagging.ram import load_ram
from seesr.weights.config import read_config


def stock_dtype(device: torch.device) -> torch.dtype:
    """The precision in which the published code computes on `device`."""
    return torch.float16 if device.type == "cuda" else torch.float32


def published(root: Path, device: torch.device, dtype: torch.dtype, steps: int) -> Contender:
    """The published code's way on a device, for one round of the benchmark."""
    name = "published" if dtype == stock_dtype(device) else f"published in {dtype_name(dtype)}"
    return Contender(name, dtype, lambda: Published(root, device, dtype, steps), enlarges=False)


class Published:
    """The stock networks of a weights folder, run one after the other on random pictures."""

    def __init__(self, root: Path, device: torch.device, dtype: torch.dtype, steps: int) -> None:
        base = root / "sd-turbo"
        self.device, self.dtype, self.steps = device, dtype, steps
        self.vae, self.denoiser = load_vae(base / "vae", dtype).to(device), load_denoiser(root, dtype).to(device)
        self.text, self.ram = load_prompt_encoder(base, dtype).to(device), load_ram(root / "ram", dtype=dtype).to(device)
        self.schedule = NoiseSchedule.from_config(read_config(base / "scheduler" / "scheduler_config.json"))

    @torch.inference_mode()
    def __call__(self, sizes: Sizes, stages: Stages) -> str:
        """Runs all networks once, each timed as a stage, and returns the name of the memory plan."""
        width, height = (side // 8 * 8 for side in sizes.output)

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            with stages.stage(stage):
                return work()

        image = torch.rand(1, 3, height, width, device=self.device, dtype=self.dtype)
        side = self.ram.config.image_size
        small_image = torch.rand(1, 3, side, side, device=self.device, dtype=self.dtype)
        with patch("torch.nn.functional.scaled_dot_product_attention", plain_attention):
            tokens, _ = timed("tags", lambda: self.ram(small_image))
        embeds = timed("prompt", lambda: self.text([QUALITY_WORDS]))
        latents = timed("encode", lambda: self.vae.encode(2 * image - 1).latent_dist.mode())
        noisy = self.schedule.add_noise(latents.float(), torch.randn(latents.shape).to(self.device), 999)

        def predict(latents: Tensor, timestep: int) -> Tensor:
            return self.denoiser(latents.to(self.dtype), timestep, image, embeds, tokens).float()

        denoised = timed("denoise", lambda: sample(predict, self.schedule, noisy, self.steps))
        timed("vae_decode", lambda: self.vae.decode(denoised.to(self.dtype)).sample)
        return "whole"


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | float = 0.0) -> Tensor:
    """Attention as the published RAM computes it: two matrix products with a softmax between them, not fused.

    Each is `(..., tokens, channels)`; `attn_mask` is added to the scores.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + attn_mask
    return scores.softmax(dim=-1) @ value
