"""The ladder of memory plans for a job: the first one that fits, then those that take less and less."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from seesr.autoencoder.vae import is_whole
from seesr.errors import OptionError
from seesr.machine.device import CPU
from seesr.planning.costs import Costs
from seesr.planning.plan import Budget, MemoryPlan, TileSettings

TILE_PIXELS = 768
"""Side of the diffusion's tiles in pixels: 96 latent pixels of the published model."""
NEVER = 10**6
VAE_TILES, SMALL_VAE_TILE = (160, 96, 64, 48), 24
SMALL_TILE, SMALLEST_TILE, SMALL_OVERLAP = 64, 48, 16
MOST_TILES_AT_ONCE, MOST_FIXED_AT_ONCE = 8, 4
"""Tiles in one pass; of fixed ones fewer, for the last pass is filled up."""
ROOM = 2
"""Times a plan's estimate that must be free where memory that layers free is kept for those that follow."""


def build_ladder(
    settings: TileSettings,
    height: int,
    width: int,
    device: torch.device,
    costs: Costs,
    budget: Budget,
    sequential: bool = False,
    compiled: bool = False,
) -> list[MemoryPlan]:
    """The plans for latents of `height` x `width`: first the one that is estimated to fit `budget`, then fallback steps.

    Each step takes less than the one before. What the user set is kept in every plan, or made smaller; what is never to be
    tiled is not. Where no plan is estimated to fit, the smallest one is left: an estimate may be wrong.

    Raises:
        OptionError: the overlap is more than half of the tile that the model has where none is given.
    """
    tile = NEVER if settings.tile == 0 else settings.tile or TILE_PIXELS // costs.factor
    overlap = tile // 3 if settings.tile_overlap is None else settings.tile_overlap
    if overlap > tile // 2:
        raise OptionError(
            f"tile_overlap is {overlap}; it may be at most half of the tile ({tile // 2}). Give a larger tile."
        )
    cuda = device.type == "cuda"
    in_tiles = "maps on the host" if cuda else "tiled VAE"
    name = "whole" if is_whole(settings.vae_tile or 0, height, width) else in_tiles
    vae_tile = _vae_tile(height, width, costs, budget.host if device.type == "cpu" else budget.device)
    first = MemoryPlan(name, device, settings.vae_tile or 0, tile, overlap, sequential=sequential, map_bytes=budget.host / 3)
    first = replace(first, particles=settings.particles, fixed_tiles=compiled)
    tiled_vae = first if settings.vae_tile == 0 else replace(first, name=in_tiles, vae_tile=settings.vae_tile or vae_tile)
    tiled, smaller = (replace(tiled_vae, name=name) for name in ("tiled latents", "smaller tiles"))
    if settings.tile != 0:
        tiled = replace(tiled, tile=min(tile, SMALL_TILE), overlap=min(overlap, SMALL_OVERLAP))
        smaller = replace(smaller, tile=min(tile, SMALLEST_TILE), overlap=min(overlap, SMALL_OVERLAP))
    smaller = replace(smaller, vae_tile=min(tiled_vae.vae_tile, SMALL_VAE_TILE))
    ladder = [first, tiled_vae, tiled, smaller]
    if cuda and settings.vae_tile is None and height * width <= costs.vae_exact:
        # Who asks for tiles wants little memory; else maps stay with the tiles: to copy them takes longer than all else.
        ladder.insert(1, replace(tiled_vae, name="tiled VAE", map_bytes=math.inf, maps_on=device))
    if settings.vae_tile is None and costs.largest_map(height, width) >= costs.too_large(device):
        del ladder[0]
    if device.type != "cpu":
        ladder.append(replace(smaller, name="offload", sequential=True))
        ladder.append(replace(smaller, name="CPU", device=CPU, sequential=False))
    ladder = _descending(ladder, height, width, costs)
    fits = [plan for plan in ladder if costs.estimate(plan, height, width) <= budget_for(plan, budget)]
    start = ladder.index(fits[0]) if fits else len(ladder) - 1
    return [_with_tiles_at_once(plan, height, width, costs, budget) for plan in ladder[start:]]


def _vae_tile(height: int, width: int, costs: Costs, budget: float) -> int:
    """The largest tile that is small beside the map and beside the budget: large ones waste least on their borders."""
    for side in VAE_TILES[:-1]:
        one = MemoryPlan("", CPU, side, NEVER, 0, map_bytes=0)
        if side <= max(height, width) // 2 and costs.of_vae(one, side, side) <= budget / 8:
            return side
    return VAE_TILES[-1]


def max_batch(plan: MemoryPlan, height: int, width: int, costs: Costs, budget: Budget, most: int) -> int:
    """Pictures, at most `most`, that fit into one pass on this plan; one, where none is estimated to."""
    if is_whole(plan.vae_tile, height, width):
        most = min(most, (costs.too_large(plan.device) - 1) // costs.largest_map(height, width))
    limit = budget_for(plan, budget)
    return next((count for count in range(most, 1, -1) if costs.estimate(plan, height, width, count) <= limit), 1)


def can_retain_heap(plan: MemoryPlan, expected: float, budget: Budget) -> bool:
    """Whether host memory that layers free may stay with the process: the plan's maps, `expected` bytes at the peak, lie
    there, and there is room."""
    return plan.device.type == "cpu" and not plan.sequential and ROOM * expected <= budget.host


def budget_for(plan: MemoryPlan, budget: Budget) -> float:
    """Bytes that `plan` may use: of the device on which it runs."""
    return budget.host if plan.device.type == "cpu" else budget.device


def _descending(ladder: list[MemoryPlan], height: int, width: int, costs: Costs) -> list[MemoryPlan]:
    """Each plan with those of its smaller tiles that save something for this size, without plans that save nothing."""
    kept = ladder[:1]
    for plan in ladder[1:]:
        last = kept[-1]
        if costs.of_vae(plan, height, width) >= costs.of_vae(last, height, width):
            plan = replace(plan, vae_tile=last.vae_tile, map_bytes=last.map_bytes, maps_on=last.maps_on)
        if costs.of_unet(plan, height, width) >= costs.of_unet(last, height, width):
            plan = replace(plan, tile=last.tile, overlap=last.overlap)
        if replace(plan, name=last.name) != last:
            kept.append(plan)
    return kept


def _with_tiles_at_once(plan: MemoryPlan, height: int, width: int, costs: Costs, budget: Budget) -> MemoryPlan:
    """As many tiles in one pass as fit; on a CPU that gains nothing."""
    if plan.device.type == "cpu":
        return plan
    most = MOST_FIXED_AT_ONCE if plan.fixed_tiles else MOST_TILES_AT_ONCE
    choices = [replace(plan, at_once=count) for count in sorted({most, most // 2, 2}, reverse=True)]
    return next((choice for choice in choices if costs.estimate(choice, height, width) <= 0.7 * budget.device), plan)
