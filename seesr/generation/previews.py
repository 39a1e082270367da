"""Previews: small pictures of latents by a linear map to RGB that is fitted to the loaded VAE once, or by TAESD.

TAESD (madebyollin/taesd) is a small decoder for the latents of SD's VAE; its architecture is diffusers' AutoencoderTiny.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from torch import Tensor, nn

from seesr.autoencoder.vae import VAETiling, encode, vae_scale_factor
from seesr.generation.ldm_layout import LATENT_CHANNELS, SCALING_FACTOR
from seesr.images.resize import to_image
from seesr.weights.state_dict import DIFFUSERS_FILE, assign_state_dict
from seesr.weights.tensors import read_safetensors

Preview = Callable[[list[Image.Image]], None]
"""Called after each step with the pictures that are made together: a pixel for each latent pixel, or TAESD's, of 8x8."""
PICTURES, SIDE, CELLS = 8, 16, 5
"""Pictures that the map is fitted on, their side in latents, and the random colours on a side of each."""
SHARE = 0.05
"""Of the time of the steps, which TAESD may take at most."""
TAESD_PLACES = ("taesd_decoder.safetensors", f"taesd/{DIFFUSERS_FILE}.safetensors")
"""In `models/vae_approx`: the decoder by its own names, or the whole in diffusers' layout."""
TAESD_FACTOR = 8


class Previews:
    """Pictures of latents while they are denoised.

    Args:
        taesd: decodes latents `(B, 4, h, w)` to RGB in -1..1, where its time allows; None leaves all to the linear map.
        clock: seconds.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        tiling: VAETiling,
        taesd: nn.Module | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.map, self.taesd, self.clock = fit_preview_map(vae, tiling), taesd, clock
        self._began, self._spent, self._seconds_of_a_latent = 0.0, 0.0, 0.0
        if taesd is not None:
            taesd.to(vae.device)
            latents = torch.zeros(1, LATENT_CHANNELS, SIDE, SIDE, device=vae.device)
            for _ in range(2):  # the first warms up
                began = clock()
                to_pictures(latents, taesd)
                self._seconds_of_a_latent = (clock() - began) / SIDE**2

    def begin(self) -> None:
        """Now the steps of a pass begin."""
        self._began, self._spent = self.clock(), 0.0

    def of(self, latents: Tensor) -> list[Image.Image]:
        """RGB pictures of latents `(B, C, h, w)`, whose noise a sampler may have scaled: TAESD's where it has time."""
        began = self.clock()
        expected = self._seconds_of_a_latent * latents[:, 0].numel()
        if self.taesd is None or self._spent + expected > SHARE * (began - self._began):
            return to_previews(latents, self.map)
        pictures = to_pictures(latents, self.taesd)
        self._spent += self.clock() - began
        return pictures


def load_taesd(folder: Path, vae: AutoencoderKL) -> nn.Module | None:
    """TAESD's decoder, in float32 on the CPU, from the user's `models/vae_approx`; None where it lacks, or is not for `vae`.

    Raises:
        WeightsError: the file is damaged, or is of another network.
    """
    is_of_sd = vae.config.latent_channels == LATENT_CHANNELS and abs(vae.config.scaling_factor - SCALING_FACTOR) < 1e-6
    path = next((path for path in (folder / place for place in TAESD_PLACES) if path.is_file()), None)
    if path is None or not is_of_sd or vae_scale_factor(vae) != TAESD_FACTOR:
        return None
    with torch.device("meta"):
        decoder: Any = AutoencoderTiny().decoder.eval()
    tensors = read_safetensors(path, torch.float32)
    if any(key.startswith("decoder.") for key in tensors):
        tensors = {key.removeprefix("decoder."): tensors[key] for key in tensors if key.startswith("decoder.")}
    else:
        # Its own network begins with a clamp that has no tensors.
        numbered = {key: key.partition(".") for key in tensors}
        tensors = {
            f"layers.{int(number) - 1}.{rest}" if number.isdecimal() else key: tensors[key]
            for key, (number, _, rest) in numbered.items()
        }
    assign_state_dict(decoder, tensors, str(path))
    return decoder


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
    rgb = _rows(_scaled(latents)) @ preview_map.to(latents.device)
    pixels = rgb.unflatten(0, (len(latents), *latents.shape[2:])).permute(0, 3, 1, 2).cpu()
    return [to_image(one) for one in pixels.split(1)]


def to_pictures(latents: Tensor, taesd: nn.Module) -> list[Image.Image]:
    """RGB pictures `(8 h, 8 w)` of latents `(B, 4, h, w)`, decoded by TAESD."""
    with torch.inference_mode():
        pixels = taesd(_scaled(latents)).cpu() / 2 + 0.5
    return [to_image(one) for one in pixels.split(1)]


def _scaled(latents: Tensor) -> Tensor:
    """In float32. No clean latents deviate more, so that a preview of noise is not all black and white."""
    deviation = latents.float().std(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    return (latents.float() / deviation).nan_to_num()


def _rows(latents: Tensor) -> Tensor:
    """`(B * h * w, C + 1)`, with 1 for the offset."""
    return F.pad(latents.permute(0, 2, 3, 1).flatten(0, 2), (0, 1), value=1.0)
