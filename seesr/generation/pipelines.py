"""diffusers' pipelines with what they lack: given noise, the device of the memory plan, prompts that AND joins."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from torch import Tensor, nn

from seesr.generation.wrapped_unet import WrappedUNet


class _OnDevice:
    """Runs where the UNet is, though the other networks may be elsewhere at that moment."""

    unet: Any

    @property
    def _execution_device(self) -> torch.device:
        return self.unet.device


class TextToImage(_OnDevice, StableDiffusionPipeline):
    """Stock; the noise is given as `latents`."""


class ImageToImage(_OnDevice, StableDiffusionImg2ImgPipeline):
    """Stock, but begins from noise that is given; `image` are latents."""

    noise: Tensor

    def prepare_latents(self, image: Tensor, timestep: Tensor, *_: Any, **__: Any) -> Tensor:
        image = image.to(self.unet.device, self.unet.dtype)
        return self.scheduler.add_noise(image, self.noise.to(image), timestep)


class Inpaint(_OnDevice, StableDiffusionInpaintPipeline):
    """Stock, but begins from noise and from a filled picture that are given; `image` are the input's latents."""

    noise: Tensor
    filled: Tensor
    """Latents of the picture whose masked part is filled."""

    def prepare_latents(
        self, *_: Any, image: Tensor, timestep: Tensor, is_strength_max: bool, **__: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        image = image.to(self.unet.device, self.unet.dtype)
        noise = self.noise.to(image)
        if is_strength_max:
            return noise * self.scheduler.init_noise_sigma, noise, image
        return self.scheduler.add_noise(self.filled.to(image), noise, timestep), noise, image


class ComposedUNet(WrappedUNet):
    """A UNet whose conditional prediction is composed of those of several prompts (Liu et al., ECCV 2022).

    It stands for `unet` in a pipeline with guidance: for the second half of a batch, whose first half is unconditional, it
    returns the unconditional prediction plus the weighted sum of each prompt's difference from it.

    Args:
        embeds: of each prompt, `(1, tokens, width)`.
        weights: of each prompt.
    """

    def __init__(self, unet: nn.Module, embeds: list[Tensor], weights: list[float]) -> None:
        super().__init__(unet)
        self.embeds, self.weights = embeds, weights

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **options: Any) -> tuple[Tensor]:
        half = len(sample) // 2
        unconditional = self.unet(sample[:half], timestep, encoder_hidden_states=encoder_hidden_states[:half], **options)[0]
        composed = unconditional.clone()
        for embeds, weight in zip(self.embeds, self.weights, strict=True):
            states = embeds.to(encoder_hidden_states).expand(half, -1, -1)
            prediction = self.unet(sample[half:], timestep, encoder_hidden_states=states, **options)[0]
            composed += weight * (prediction - unconditional)
        return (torch.cat([unconditional, composed]),)
