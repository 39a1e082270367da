"""Previews: small pictures of latents by a linear map to RGB, which is fitted to the loaded VAE once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from seesr.autoencoder.vae import VAETiling, encode, vae_scale_factor
from seesr.images.resize import to_image

Preview = Callable[[list[Image.Image]], None]
"""Called after each step with the pictures that are made together, a pixel for each latent pixel."""
PICTURES, SIDE, CELLS = 8, 16, 5
"""Pictures that the map is fitted on, their side in latents, and the random colours on a side of each."""


def fit_preview_map(vae: AutoencoderKL, tiling: VAETiling) -> Tensor:
    """`(C + 1, 3)`, float32 on the CPU: for each channel of the latents what it adds to red, green and blue, and an offset.

    By least squares on smooth fields of random colours, encoded by the VAE.
    """
    factor = vae_scale_factor(vae)
    colours = torch.rand(PICTURES, 3, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    fields = F.interpolate(colours, size=SIDE * factor, mode="bicubic", align_corners=True).clamp(0, 1)
    latents = torch.cat([encode(vae, field, tiling) for field in fields.split(1)]).float().cpu()
    return torch.linalg.lstsq(_rows(latents), F.avg_pool2d(fields, factor).permute(0, 2, 3, 1).flatten(0, 2)).solution


def to_previews(latents: Tensor, preview_map: Tensor) -> list[Image.Image]:
    """RGB pictures `(h, w)` of latents `(B, C, h, w)`, whose noise a sampler may have scaled."""
    # No clean latents are larger, so that a preview of noise is not all black and white.
    deviation = latents.float().std(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    rgb = _rows((latents.float() / deviation).nan_to_num()) @ preview_map.to(latents.device)
    pixels = rgb.unflatten(0, (len(latents), *latents.shape[2:])).permute(0, 3, 1, 2).cpu()
    return [to_image(one) for one in pixels.split(1)]


def _rows(latents: Tensor) -> Tensor:
    """`(B * h * w, C + 1)`, with 1 for the offset."""
    return F.pad(latents.permute(0, 2, 3, 1).flatten(0, 2), (0, 1), value=1.0)
