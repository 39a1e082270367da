"""The UNet and the ControlNet that together predict the noise."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from seesr.diffusion.image_attention import IMAGE_TOKENS_KEY, build_controlnet, build_unet
from seesr.weights.state_dict import DIFFUSERS_FILE, load_network, read_state_dict
from seesr.weights.tensors import StateDict


class Denoiser(nn.Module):
    """UNet and ControlNet as one function of the noisy latents."""

    def __init__(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.unet = unet
        self.controlnet = controlnet

    def forward(
        self,
        latents: Tensor,
        timestep: int,
        image: Tensor,
        prompt_embeds: Tensor,
        image_hidden_states: Tensor,
        conditioning_scale: float = 1.0,
    ) -> Tensor:
        """The UNet's prediction (noise or v, as the scheduler config says), of the shape of `latents`.

        Args:
            latents: `(B, C, h, w)`.
            timestep: 0 to 999.
            image: RGB `(B, 3, H, W)` in 0..1 at the target size, the input of the ControlNet.
            prompt_embeds: `(B, tokens, width)` from the CLIP text encoder.
            image_hidden_states: image tokens `(B, 145, 512)` from RAM.
            conditioning_scale: factor of the ControlNet's residuals.
        """
        conditions = {
            "encoder_hidden_states": prompt_embeds,
            "cross_attention_kwargs": {IMAGE_TOKENS_KEY: image_hidden_states},
            "return_dict": False,
        }
        down, mid = self.controlnet(
            latents, timestep, controlnet_cond=image, conditioning_scale=conditioning_scale, **conditions
        )
        (prediction,) = self.unet(
            latents,
            timestep,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            **conditions,
        )
        return prediction


def load_denoiser(root: Path, dtype: torch.dtype = torch.float32) -> Denoiser:
    """Reads the denoiser of a weights folder in the published layout.

    Raises:
        WeightsError: a file is missing, or its tensors do not fit its config.
    """
    unet = load_unet(root / "sd-turbo" / "unet", root / "seesr" / "unet", dtype)
    return Denoiser(unet, load_controlnet(root / "seesr" / "controlnet", dtype))


def load_unet(base: Path, seesr: Path, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """Reads the base model's UNet, and from SeeSR's UNet only the tensors of `image_attentions`."""

    def add_image_attention(state_dict: StateDict) -> StateDict:
        return state_dict | read_state_dict(seesr, DIFFUSERS_FILE, dtype, containing=".image_attentions.")

    return load_network(base, build_unet, dtype, add_image_attention)


def load_controlnet(folder: Path, dtype: torch.dtype = torch.float32) -> ControlNetModel:
    """Reads SeeSR's ControlNet."""
    return load_network(folder, build_controlnet, dtype)
