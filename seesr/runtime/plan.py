"""Which ways there are through the models for a picture, from the one that takes most memory to the one that takes least."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import torch

from seesr.autoencoder.attention import SCORES, goes_as_products
from seesr.autoencoder.estimated import SAMPLES, sample_side
from seesr.autoencoder.maps import MapMemory
from seesr.autoencoder.vae import is_whole
from seesr.diffusion.tiles import Tiles
from seesr.errors import OptionError
from seesr.options import Options
from seesr.runtime.device import CPU
from seesr.runtime.memory import memory_bytes, used_bytes

TILE_PIXELS = 768
"""Side of the diffusion's tiles in pixels: 96 latent pixels of the published model."""
NEVER = 10**6
VAE_TILES, SMALL_VAE_TILE = (160, 96, 64, 48), 24
SMALL_TILE, SMALLEST_TILE, SMALL_OVERLAP = 64, 48, 16
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
MOST_TILES_AT_ONCE, MOST_FIXED_AT_ONCE = 8, 4
"""Tiles in one pass; of fixed ones fewer, for the last pass is filled up."""
ROOM = 2
"""Times a plan's estimate that must be free where memory that layers free is kept for those that follow."""
FREE_SHARE = 0.9
"""Of the memory that is free, what a plan may use."""


@dataclass(frozen=True)
class Rung:
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

    def estimate(self, rung: Rung, height: int, width: int, batch: int = 1) -> float:
        """Bytes at the peak on `rung` for latents of this size; on a CPU beyond the weights that are there already."""
        picture = height * width * self.factor**2 * 3 * 4 * batch
        networks = max(self.of_vae(rung, height, width, batch), self.of_unet(rung, height, width, batch))
        if rung.device.type == "cpu":
            return networks + picture * PICTURE_COPIES + (self.largest if rung.sequential else 0)
        if is_whole(rung.vae_tile, height, width) or rung.maps_on == rung.device:
            networks = max(networks, picture * PICTURE_COPIES)
        return networks + (self.largest if rung.sequential else self.weights)

    def of_vae(self, rung: Rung, height: int, width: int, batch: int = 1) -> float:
        """What encoding or decoding takes."""
        widest = self.largest_map(height, width) * self.itemsize
        if is_whole(rung.vae_tile, height, width):
            return widest * VAE_MAPS * batch
        if height * width > self.vae_exact:
            one = min(rung.vae_tile + 2 * self.vae_halo, height) * min(rung.vae_tile + 2 * self.vae_halo, width)
            together = max(one, SAMPLES**2 * sample_side(rung.vae_tile) ** 2)
            return widest * together / (height * width) * VAE_MAPS
        tile = widest * min(1.0, rung.vae_tile**2 / (height * width))
        kept = min(widest * KEPT_MAPS, rung.map_bytes) if rung.device == rung.maps_on else 0
        return max(tile * VAE_MAPS + kept, self.of_attention(rung, height, width))

    def of_attention(self, rung: Rung, height: int, width: int) -> float:
        """What the VAE's attention over all latent pixels takes: keys and values, and on CUDA scores and their softmax."""
        pixels = height * width
        scores = min(SCORES, pixels**2) if goes_as_products(rung.device, self.vae_attention) else 0
        return 2 * pixels * self.vae_attention * self.itemsize + 2 * scores * 4

    def largest_map(self, height: int, width: int, batch: int = 1) -> int:
        """Numbers of the whole VAE's largest map."""
        return height * width * self.factor**2 * self.vae_channels * batch

    def too_large(self, device: torch.device) -> int:
        """Numbers of such a map that the device does not take whole."""
        return {"cuda": LARGEST_MAP, "mps": LARGEST_METAL_MAP // self.itemsize}.get(device.type, sys.maxsize)

    def of_unet(self, rung: Rung, height: int, width: int, batch: int = 1) -> float:
        """What a step of the UNet and ControlNet takes, and what further particles do."""
        tiles = rung.tiles(height, width)
        at_once = min(rung.at_once, len(tiles.corners) * rung.particles) * batch
        networks = tiles.tile_height * tiles.tile_width * self.unet_channels * UNET_MAPS * self.itemsize * at_once
        return networks + height * width * self.latent_channels * 4 * LATENT_COPIES * (rung.particles - 1) * batch


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


def rungs(
    options: Options,
    height: int,
    width: int,
    device: torch.device,
    costs: Costs,
    budget: Budget,
    sequential: bool = False,
    compiled: bool = False,
) -> list[Rung]:
    """All ways, the first being the one that is estimated to fit into `budget`; from there each takes less.

    What the user set is kept on every rung, or made smaller; what shall never be tiled is not. Where nothing fits, the
    last way is left: an estimate may be wrong.

    Raises:
        OptionError: the overlap is more than half of the tile that the model has where none is given.
    """
    tile = NEVER if options.tile == 0 else options.tile or TILE_PIXELS // costs.factor
    overlap = tile // 3 if options.tile_overlap is None else options.tile_overlap
    if overlap > tile // 2:
        raise OptionError(
            f"tile_overlap is {overlap}; it may be at most half of the tile ({tile // 2}). Give a larger tile."
        )
    cuda = device.type == "cuda"
    in_tiles = "maps on the host" if cuda else "tiled VAE"
    name = "whole" if is_whole(options.vae_tile or 0, height, width) else in_tiles
    vae_tile = _vae_tile(height, width, costs, budget.host if device.type == "cpu" else budget.device)
    first = Rung(name, device, options.vae_tile or 0, tile, overlap, sequential=sequential, map_bytes=budget.host / 3)
    first = replace(first, particles=options.particles, fixed_tiles=compiled)
    tiled_vae = first if options.vae_tile == 0 else replace(first, name=in_tiles, vae_tile=options.vae_tile or vae_tile)
    tiled, smaller = (replace(tiled_vae, name=name) for name in ("tiled latents", "smaller tiles"))
    if options.tile != 0:
        tiled = replace(tiled, tile=min(tile, SMALL_TILE), overlap=min(overlap, SMALL_OVERLAP))
        smaller = replace(smaller, tile=min(tile, SMALLEST_TILE), overlap=min(overlap, SMALL_OVERLAP))
    smaller = replace(smaller, vae_tile=min(tiled_vae.vae_tile, SMALL_VAE_TILE))
    ladder = [first, tiled_vae, tiled, smaller]
    if cuda and options.vae_tile is None and height * width <= costs.vae_exact:
        # Who asks for tiles wants little memory; else maps stay with the tiles: to copy them takes longer than all else.
        ladder.insert(1, replace(tiled_vae, name="tiled VAE", map_bytes=math.inf, maps_on=device))
    if options.vae_tile is None and costs.largest_map(height, width) >= costs.too_large(device):
        del ladder[0]
    if device.type != "cpu":
        ladder.append(replace(smaller, name="offload", sequential=True))
        ladder.append(replace(smaller, name="CPU", device=CPU, sequential=False))
    ladder = _descending(ladder, height, width, costs)
    fits = [rung for rung in ladder if costs.estimate(rung, height, width) <= limit_of(rung, budget)]
    start = ladder.index(fits[0]) if fits else len(ladder) - 1
    return [_with_tiles_at_once(rung, height, width, costs, budget) for rung in ladder[start:]]


def _vae_tile(height: int, width: int, costs: Costs, budget: float) -> int:
    """The largest tile that is small beside the map and beside the budget: large ones waste least on their borders."""
    for side in VAE_TILES[:-1]:
        one = Rung("", CPU, side, NEVER, 0, map_bytes=0)
        if side <= max(height, width) // 2 and costs.of_vae(one, side, side) <= budget / 8:
            return side
    return VAE_TILES[-1]


def how_many(rung: Rung, height: int, width: int, costs: Costs, budget: Budget, most: int) -> int:
    """Pictures, at most `most`, that fit into one pass on this rung; one, where none is estimated to."""
    if is_whole(rung.vae_tile, height, width):
        most = min(most, (costs.too_large(rung.device) - 1) // costs.largest_map(height, width))
    limit = limit_of(rung, budget)
    return next((count for count in range(most, 1, -1) if costs.estimate(rung, height, width, count) <= limit), 1)


def may_keep(rung: Rung, expected: float, budget: Budget) -> bool:
    """Whether host memory that layers free may stay with the process: the rung's maps, `expected` bytes at the peak, lie
    there, and there is room."""
    return rung.device.type == "cpu" and not rung.sequential and ROOM * expected <= budget.host


def limit_of(rung: Rung, budget: Budget) -> float:
    return budget.host if rung.device.type == "cpu" else budget.device


def _descending(ladder: list[Rung], height: int, width: int, costs: Costs) -> list[Rung]:
    """Each rung with those of its tiles that save something for this size, without rungs that save nothing."""
    kept = ladder[:1]
    for rung in ladder[1:]:
        last = kept[-1]
        if costs.of_vae(rung, height, width) >= costs.of_vae(last, height, width):
            rung = replace(rung, vae_tile=last.vae_tile, map_bytes=last.map_bytes, maps_on=last.maps_on)
        if costs.of_unet(rung, height, width) >= costs.of_unet(last, height, width):
            rung = replace(rung, tile=last.tile, overlap=last.overlap)
        if replace(rung, name=last.name) != last:
            kept.append(rung)
    return kept


def _with_tiles_at_once(rung: Rung, height: int, width: int, costs: Costs, budget: Budget) -> Rung:
    """As many tiles in one pass as fit; on a CPU that gains nothing."""
    if rung.device.type == "cpu":
        return rung
    most = MOST_FIXED_AT_ONCE if rung.fixed_tiles else MOST_TILES_AT_ONCE
    choices = [replace(rung, at_once=count) for count in sorted({most, most // 2, 2}, reverse=True)]
    return next((choice for choice in choices if costs.estimate(choice, height, width) <= 0.7 * budget.device), rung)
