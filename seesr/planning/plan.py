"""A memory plan: where the networks run and in which tiles; the workload and the budget that it is made for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seesr.autoencoder.feature_maps import MapStorage
from seesr.machine.device import CPU
from seesr.machine.memory import memory_bytes, used_bytes
from seesr.tiling import Tiles

USABLE_SHARE = 0.9
"""Share of the free memory that a plan may use."""


@dataclass(frozen=True)
class TileSettings:
    """What the user may set of a plan, in latent pixels; None leaves the choice to the plan, 0 is never tiled."""

    tile: int | None = None
    tile_overlap: int | None = None
    vae_tile: int | None = None
    particles: int = 1
    """Particles of each picture (see `Steering`)."""


@dataclass(frozen=True)
class Workload:
    """What determines the memory of a job: latents of `height` x `width`, and the user's settings."""

    height: int
    width: int
    settings: TileSettings = TileSettings()


@dataclass(frozen=True)
class MemoryPlan:
    """Where the networks run, and in which tiles."""

    name: str
    device: torch.device
    vae_tile: int
    """Side of the VAE's tiles in latent pixels; 0 is whole."""
    tile: int
    """Longest side of the diffusion tiles in latent pixels."""
    overlap: int
    tiles_per_pass: int = 1
    """Diffusion tiles in one pass, of all particles together."""
    particles: int = 1
    """Particles of each picture (see `Steering`)."""
    sequential: bool = False
    """Only the running network is on the device; on a CPU, only it is in memory."""
    map_limit: float = float("inf")
    """Bytes of feature maps that the tiled VAE may store in memory; the rest is stored in files."""
    map_device: torch.device = CPU
    """Where it stores them."""
    fixed_tiles: bool = False
    """Diffusion tiles have the same size for all pictures, for compiled networks."""

    @property
    def map_storage(self) -> MapStorage:
        """A new, empty storage for the feature maps of the tiled VAE."""
        return MapStorage(self.map_limit, device=self.map_device)

    def tiles(self, height: int, width: int) -> Tiles:
        return Tiles(height, width, self.tile, self.overlap, self.tiles_per_pass, self.fixed_tiles)


@dataclass(frozen=True)
class Budget:
    """Bytes that may be used: of the device (weights included; on a CPU without them), and of the machine."""

    device: float
    host: float

    @classmethod
    def now(cls, device: torch.device, limit: int | None) -> Budget:
        """The budget now; `limit` is the most bytes of the device that the process may use, weights included."""
        host = USABLE_SHARE * memory_bytes(CPU)[0]
        if device.type == "cpu":
            host = host if limit is None else min(host, limit - used_bytes(CPU))
            return cls(host, host)
        total = USABLE_SHARE * memory_bytes(device)[0] + used_bytes(device)
        return cls(total if limit is None else min(total, limit), host)
