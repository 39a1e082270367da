"""The ladder of memory plans for a job: the first plan that fits, then plans that need less and less memory."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from seesr.autoencoder.vae import is_whole
from seesr.errors import OptionError
from seesr.machine.device import CPU
from seesr.planning.costs import CostModel
from seesr.planning.plan import Budget, MemoryPlan, TileSettings

TILE_PIXELS = 768
"""Default side of diffusion tiles in pixels: 96 latent pixels of the published model."""
UNTILED = 10**6
"""Tile side that no picture exceeds."""
VAE_TILES, SMALL_VAE_TILE = (160, 96, 64, 48), 24
SMALL_TILE, SMALLEST_TILE, SMALL_OVERLAP = 64, 48, 16
MAX_TILES_PER_PASS, MAX_FIXED_TILES_PER_PASS = 8, 4
"""Fewer fixed tiles, because their last pass is filled up with repeated tiles."""
HEAP_HEADROOM = 2
"""Factor by which the free memory must exceed the estimate if the heap is retained."""


def build_ladder(
    settings: TileSettings,
    height: int,
    width: int,
    device: torch.device,
    costs: CostModel,
    budget: Budget,
    sequential: bool = False,
    compiled: bool = False,
) -> list[MemoryPlan]:
    """The plans for latents of `height` x `width`: first the one that is estimated to fit `budget`, then the fallback steps.

    Each plan needs less memory than the one before. Tile sizes that the user set are kept or reduced; what the user set
    to be never tiled stays whole. If no plan is estimated to fit, the smallest one is left, for an estimate may be wrong.

    Raises:
        OptionError: the overlap is more than half of the model's default tile.
    """
    tile = UNTILED if settings.tile == 0 else settings.tile or TILE_PIXELS // costs.factor
    overlap = tile // 3 if settings.tile_overlap is None else settings.tile_overlap
    if overlap > tile // 2:
        raise OptionError(
            f"tile_overlap is {overlap}; it may be at most half of the tile ({tile // 2}). Give a larger tile."
        )
    cuda = device.type == "cuda"
    tiled_name = "maps on the host" if cuda else "tiled VAE"
    name = "whole" if is_whole(settings.vae_tile or 0, height, width) else tiled_name
    vae_tile = _vae_tile(height, width, costs, budget.host if device.type == "cpu" else budget.device)
    first = MemoryPlan(name, device, settings.vae_tile or 0, tile, overlap, sequential=sequential, map_limit=budget.host / 3)
    first = replace(first, particles=settings.particles, fixed_tiles=compiled)
    tiled_vae = first if settings.vae_tile == 0 else replace(first, name=tiled_name, vae_tile=settings.vae_tile or vae_tile)
    tiled, smaller = (replace(tiled_vae, name=name) for name in ("tiled latents", "smaller tiles"))
    if settings.tile != 0:
        tiled = replace(tiled, tile=min(tile, SMALL_TILE), overlap=min(overlap, SMALL_OVERLAP))
        smaller = replace(smaller, tile=min(tile, SMALLEST_TILE), overlap=min(overlap, SMALL_OVERLAP))
    smaller = replace(smaller, vae_tile=min(tiled_vae.vae_tile, SMALL_VAE_TILE))
    ladder = [first, tiled_vae, tiled, smaller]
    if cuda and settings.vae_tile is None and height * width <= costs.max_exact_latents:
        # A user sets VAE tiles to save memory. Otherwise maps stay on the GPU: copying them takes longer than all else.
        ladder.insert(1, replace(tiled_vae, name="tiled VAE", map_limit=math.inf, map_device=device))
    if settings.vae_tile is None and costs.largest_map_elements(height, width) >= costs.max_map_elements(device):
        del ladder[0]
    if device.type != "cpu":
        ladder.append(replace(smaller, name="offload", sequential=True))
        ladder.append(replace(smaller, name="CPU", device=CPU, sequential=False))
    ladder = _drop_useless_steps(ladder, height, width, costs)
    fits = [plan for plan in ladder if costs.estimate(plan, height, width) <= budget_for(plan, budget)]
    start = ladder.index(fits[0]) if fits else len(ladder) - 1
    return [_with_tiles_per_pass(plan, height, width, costs, budget) for plan in ladder[start:]]


def _vae_tile(height: int, width: int, costs: CostModel, budget: float) -> int:
    """The largest VAE tile that is small compared to the map and the budget: large tiles compute the least border twice."""
    for side in VAE_TILES[:-1]:
        plan = MemoryPlan("", CPU, side, UNTILED, 0, map_limit=0)
        if side <= max(height, width) // 2 and costs.vae_bytes(plan, side, side) <= budget / 8:
            return side
    return VAE_TILES[-1]


def max_batch(plan: MemoryPlan, height: int, width: int, costs: CostModel, budget: Budget, limit: int) -> int:
    """Number of pictures, at most `limit`, that fit into one pass with this plan; at least 1."""
    if is_whole(plan.vae_tile, height, width):
        limit = min(limit, (costs.max_map_elements(plan.device) - 1) // costs.largest_map_elements(height, width))
    available = budget_for(plan, budget)
    return next((count for count in range(limit, 1, -1) if costs.estimate(plan, height, width, count) <= available), 1)


def can_retain_heap(plan: MemoryPlan, expected_bytes: float, budget: Budget) -> bool:
    """Whether the process may keep host memory that layers free (`retain_heap`): the plan runs on the CPU, and there is
    room for its peak of `expected_bytes`."""
    return plan.device.type == "cpu" and not plan.sequential and HEAP_HEADROOM * expected_bytes <= budget.host


def budget_for(plan: MemoryPlan, budget: Budget) -> float:
    """Bytes that `plan` may use on its device."""
    return budget.host if plan.device.type == "cpu" else budget.device


def _drop_useless_steps(ladder: list[MemoryPlan], height: int, width: int, costs: CostModel) -> list[MemoryPlan]:
    """The plans with only those smaller tiles that save memory for this size, without plans that save nothing."""
    kept = ladder[:1]
    for plan in ladder[1:]:
        previous = kept[-1]
        if costs.vae_bytes(plan, height, width) >= costs.vae_bytes(previous, height, width):
            plan = replace(plan, vae_tile=previous.vae_tile, map_limit=previous.map_limit, map_device=previous.map_device)
        if costs.denoiser_bytes(plan, height, width) >= costs.denoiser_bytes(previous, height, width):
            plan = replace(plan, tile=previous.tile, overlap=previous.overlap)
        if replace(plan, name=previous.name) != previous:
            kept.append(plan)
    return kept


def _with_tiles_per_pass(plan: MemoryPlan, height: int, width: int, costs: CostModel, budget: Budget) -> MemoryPlan:
    """`plan` with as many tiles in one pass as fit; on a CPU with one, because more are not faster there."""
    if plan.device.type == "cpu":
        return plan
    limit = MAX_FIXED_TILES_PER_PASS if plan.fixed_tiles else MAX_TILES_PER_PASS
    choices = [replace(plan, tiles_per_pass=count) for count in sorted({limit, limit // 2, 2}, reverse=True)]
    return next((choice for choice in choices if costs.estimate(choice, height, width) <= 0.7 * budget.device), plan)
