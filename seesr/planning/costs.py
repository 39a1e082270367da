"""The cost model: bytes that a memory plan takes at its peak, estimated from the networks' widths."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from seesr.autoencoder.estimated import SAMPLES, sample_side
from seesr.autoencoder.vae import is_whole
from seesr.kernels.attention import SCORES, uses_math_attention
from seesr.planning.plan import MemoryPlan

PICTURE_COPIES = 5
"""Pictures in float32 that colour fix and bicubic hold at once."""
LARGEST_MAP, LARGEST_METAL_MAP = 2**31, 2**32
"""Numbers of a map, on MPS bytes, from which on the VAE is not run whole there unasked: not all of CUDA's kernels enlarge
such a map (diffusers issue 3643, for channels last), and Metal ends the process (by reports)."""
VAE_MAPS = 3.6
"""Widest maps that a block of the whole VAE holds at once: its input, that normalised and activated, its output."""
KEPT_MAPS = 1.4
"""Widest maps that the tiled VAE keeps in memory."""
UNET_MAPS = 60
"""Maps of the UNet's first width that it and the ControlNet hold at once, skip connections included."""
LATENT_COPIES = 11
"""Latents in float32 that steering holds at once for each particle beyond the first."""


@dataclass(frozen=True)
class Costs:
    """What the plan must know of the models."""

    vae_channels: int
    """Width of the maps at full resolution."""
    unet_channels: int
    factor: int
    """Pixels for each latent."""
    itemsize: int
    """Bytes of a number."""
    weights: int = 0
    """Bytes of all networks."""
    largest: int = 0
    """Bytes of the largest network."""
    vae_halo: int = 0
    """Latent pixels that estimated tiles see around them."""
    vae_exact: float = float("inf")
    """Latent pixels up to which the VAE's tiles are exact."""
    latent_channels: int = 4
    vae_attention: int = 0
    """Width of the attention in the VAE's middle."""

    def estimate(self, plan: MemoryPlan, height: int, width: int, batch: int = 1) -> float:
        """Bytes at the peak on `plan` for latents of this size; on a CPU beyond the weights that are there already."""
        picture = height * width * self.factor**2 * 3 * 4 * batch
        networks = max(self.of_vae(plan, height, width, batch), self.of_unet(plan, height, width, batch))
        if plan.device.type == "cpu":
            return networks + picture * PICTURE_COPIES + (self.largest if plan.sequential else 0)
        if is_whole(plan.vae_tile, height, width) or plan.maps_on == plan.device:
            networks = max(networks, picture * PICTURE_COPIES)
        return networks + (self.largest if plan.sequential else self.weights)

    def of_vae(self, plan: MemoryPlan, height: int, width: int, batch: int = 1) -> float:
        """What encoding or decoding takes."""
        widest = self.largest_map(height, width) * self.itemsize
        if is_whole(plan.vae_tile, height, width):
            return widest * VAE_MAPS * batch
        if height * width > self.vae_exact:
            one = min(plan.vae_tile + 2 * self.vae_halo, height) * min(plan.vae_tile + 2 * self.vae_halo, width)
            together = max(one, SAMPLES**2 * sample_side(plan.vae_tile) ** 2)
            return widest * together / (height * width) * VAE_MAPS
        tile = widest * min(1.0, plan.vae_tile**2 / (height * width))
        kept = min(widest * KEPT_MAPS, plan.map_bytes) if plan.device == plan.maps_on else 0
        return max(tile * VAE_MAPS + kept, self.of_attention(plan, height, width))

    def of_attention(self, plan: MemoryPlan, height: int, width: int) -> float:
        """What the VAE's attention over all latent pixels takes: keys and values, and on CUDA scores and their softmax."""
        pixels = height * width
        scores = min(SCORES, pixels**2) if uses_math_attention(plan.device, self.vae_attention) else 0
        return 2 * pixels * self.vae_attention * self.itemsize + 2 * scores * 4

    def largest_map(self, height: int, width: int, batch: int = 1) -> int:
        """Numbers of the whole VAE's largest map."""
        return height * width * self.factor**2 * self.vae_channels * batch

    def too_large(self, device: torch.device) -> int:
        """Numbers of such a map that the device does not take whole."""
        return {"cuda": LARGEST_MAP, "mps": LARGEST_METAL_MAP // self.itemsize}.get(device.type, sys.maxsize)

    def of_unet(self, plan: MemoryPlan, height: int, width: int, batch: int = 1) -> float:
        """What a step of the UNet and ControlNet takes, and what further particles do."""
        tiles = plan.tiles(height, width)
        at_once = min(plan.at_once, len(tiles.corners) * plan.particles) * batch
        networks = tiles.tile_height * tiles.tile_width * self.unet_channels * UNET_MAPS * self.itemsize * at_once
        return networks + height * width * self.latent_channels * 4 * LATENT_COPIES * (plan.particles - 1) * batch
