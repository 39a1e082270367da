"""The cost model: the peak memory of a job under a memory plan, estimated from the widths of the networks."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from seesr.autoencoder.estimated import SAMPLES_PER_SIDE, sample_side
from seesr.autoencoder.vae import is_whole
from seesr.kernels.attention import SCORES_PER_CHUNK, uses_math_attention
from seesr.planning.plan import MemoryPlan

PICTURE_COPIES = 5
"""Pictures in float32 that the colour fix and the bicubic resize hold at once."""
MAX_CUDA_MAP_ELEMENTS, MAX_MPS_MAP_BYTES = 2**31, 2**32
"""Size of a feature map from which the VAE does not run whole on CUDA or MPS, unless asked to: not all CUDA kernels can
upsample such a map (diffusers issue 3643, for channels last), and Metal is reported to end the process."""
VAE_MAPS = 3.6
"""Largest maps that a block of the whole VAE holds at once: input, normalised and activated input, output."""
STORED_MAPS = 1.4
"""Largest maps that the tiled VAE stores at once."""
DENOISER_MAPS = 60
"""Maps of the UNet's first width that UNet and ControlNet hold at once, skip connections included."""
LATENT_COPIES = 11
"""Latents in float32 that steering holds at once for each particle beyond the first."""


@dataclass(frozen=True)
class CostModel:
    """Estimates memory from the sizes of the networks."""

    vae_channels: int
    """Channels of the VAE's maps at full resolution."""
    unet_channels: int
    """Channels of the UNet's first level."""
    factor: int
    """Pixels for each latent pixel along a side."""
    itemsize: int
    """Bytes of a value in the VAE's dtype."""
    weight_bytes: int = 0
    """Bytes of the weights of all networks."""
    largest_weight_bytes: int = 0
    """Bytes of the weights of the largest network; UNet and ControlNet, which run together, count as one."""
    vae_halo: int = 0
    """Latent pixels of the halo of estimated tiles."""
    max_exact_latents: float = float("inf")
    """Latent pixels of a picture up to which the tiles of the VAE are exact."""
    latent_channels: int = 4
    attention_width: int = 0
    """Channels of the attention in the VAE's mid block."""

    def estimate(self, plan: MemoryPlan, height: int, width: int, batch: int = 1) -> float:
        """Peak bytes under `plan` for latents of this size; on a CPU without the weights, which are in memory already."""
        picture = height * width * self.factor**2 * 3 * 4 * batch
        networks = max(self.vae_bytes(plan, height, width, batch), self.denoiser_bytes(plan, height, width, batch))
        if plan.device.type == "cpu":
            return networks + picture * PICTURE_COPIES + (self.largest_weight_bytes if plan.sequential else 0)
        if is_whole(plan.vae_tile, height, width) or plan.map_device == plan.device:
            networks = max(networks, picture * PICTURE_COPIES)
        return networks + (self.largest_weight_bytes if plan.sequential else self.weight_bytes)

    def vae_bytes(self, plan: MemoryPlan, height: int, width: int, batch: int = 1) -> float:
        """Bytes to encode or to decode."""
        map_bytes = self.largest_map_elements(height, width) * self.itemsize
        if is_whole(plan.vae_tile, height, width):
            return map_bytes * VAE_MAPS * batch
        if height * width > self.max_exact_latents:
            tile = min(plan.vae_tile + 2 * self.vae_halo, height) * min(plan.vae_tile + 2 * self.vae_halo, width)
            pixels = max(tile, SAMPLES_PER_SIDE**2 * sample_side(plan.vae_tile) ** 2)
            return map_bytes * pixels / (height * width) * VAE_MAPS
        tile_bytes = map_bytes * min(1.0, plan.vae_tile**2 / (height * width))
        stored = min(map_bytes * STORED_MAPS, plan.map_limit) if plan.device == plan.map_device else 0
        return max(tile_bytes * VAE_MAPS + stored, self.attention_bytes(plan, height, width))

    def attention_bytes(self, plan: MemoryPlan, height: int, width: int) -> float:
        """Bytes of the VAE's attention over all latent pixels: keys and values, and on CUDA scores and their softmax."""
        pixels = height * width
        scores = min(SCORES_PER_CHUNK, pixels**2) if uses_math_attention(plan.device, self.attention_width) else 0
        return 2 * pixels * self.attention_width * self.itemsize + 2 * scores * 4

    def largest_map_elements(self, height: int, width: int, batch: int = 1) -> int:
        """Elements of the largest feature map of the whole VAE."""
        return height * width * self.factor**2 * self.vae_channels * batch

    def max_map_elements(self, device: torch.device) -> int:
        """Elements from which the largest map is too large for the device to run the VAE whole."""
        return {"cuda": MAX_CUDA_MAP_ELEMENTS, "mps": MAX_MPS_MAP_BYTES // self.itemsize}.get(device.type, sys.maxsize)

    def denoiser_bytes(self, plan: MemoryPlan, height: int, width: int, batch: int = 1) -> float:
        """Bytes of a step of UNet and ControlNet, and of the particles beyond the first."""
        tiles = plan.tiles(height, width)
        tile_batch = min(plan.tiles_per_pass, len(tiles.corners) * plan.particles) * batch
        networks = tiles.tile_height * tiles.tile_width * self.unet_channels * DENOISER_MAPS * self.itemsize * tile_batch
        return networks + height * width * self.latent_channels * 4 * LATENT_COPIES * (plan.particles - 1) * batch
