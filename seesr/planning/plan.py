"""A memory plan: where the networks run and in what pieces; what a job asks for, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seesr.autoencoder.feature_maps import MapMemory
from seesr.machine.device import CPU
from seesr.machine.memory import memory_bytes, used_bytes
from seesr.tiling import Tiles

FREE_SHARE = 0.9
"""Of the memory that is free, what a plan may use."""


@dataclass(frozen=True)
class TileSettings:
    """What a user may set of a plan, in latent pixels; None leaves it to the plan, 0 is never tiled."""

    tile: int | None = None
    tile_overlap: int | None = None
    vae_tile: int | None = None
    particles: int = 1
    """Versions of each picture that the diffusion works on."""


@dataclass(frozen=True)
class Workload:
    """What one pass has to do, as far as memory goes: latents of `height` x `width`, and what the user set."""

    height: int
    width: int
    settings: TileSettings = TileSettings()


@dataclass(frozen=True)
class MemoryPlan:
    """One way: where the models run, and in what pieces."""

    name: str
    device: torch.device
    vae_tile: int
    """In latent pixels; 0 is whole."""
    tile: int
    overlap: int
    at_once: int = 1
    """Diffusion tiles in one pass, of all particles."""
    particles: int = 1
    """Versions of each picture that the diffusion works on."""
    sequential: bool = False
    """Only the running model is on the device; on a CPU, in memory at all."""
    map_bytes: float = float("inf")
    """What the tiled VAE may keep in memory; the rest goes into files."""
    maps_on: torch.device = CPU
    """Where it keeps that."""
    fixed_tiles: bool = False
    """Diffusion tiles of one size, whatever the picture's, for compiled networks."""

    @property
    def map_memory(self) -> MapMemory:
        """What the tiled VAE keeps its maps in, still empty."""
        return MapMemory(self.map_bytes, device=self.maps_on)

    def tiles(self, height: int, width: int) -> Tiles:
        return Tiles(height, width, self.tile, self.overlap, self.at_once, self.fixed_tiles)


@dataclass(frozen=True)
class Budget:
    """Bytes that may be used: of the device (its weights included; on a CPU what is still to be had), and of the machine."""

    device: float
    host: float

    @classmethod
    def now(cls, device: torch.device, limit: int | None) -> Budget:
        """At this moment; `limit` is the most that the process may use, bytes of the device, weights included."""
        host = FREE_SHARE * memory_bytes(CPU)[0]
        if device.type == "cpu":
            host = host if limit is None else min(host, limit - used_bytes(CPU))
            return cls(host, host)
        everything = FREE_SHARE * memory_bytes(device)[0] + used_bytes(device)
        return cls(everything if limit is None else min(everything, limit), host)
