"""The memory plans for a job: what each takes, their order, and what the options ask for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seesr import OptionError, Options
from seesr.kernels.attention import SCORES_PER_CHUNK
from seesr.machine.device import CPU
from seesr.planning.costs import LATENT_COPIES, CostModel
from seesr.planning.ladder import build_ladder, can_retain_heap, max_batch
from seesr.planning.plan import Budget, MemoryPlan, TileSettings

RUNGS = ["whole", "tiled VAE", "tiled latents", "smaller tiles"]
TINY = CostModel(vae_channels=32, unet_channels=64, factor=4, itemsize=4, vae_halo=14, max_exact_latents=2**20)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 2048),
    width=st.integers(1, 2048),
    budget=st.floats(1e6, 1e12),
    vae_tile=st.sampled_from([None, 0, 16, 128]),
    tile=st.sampled_from([None, 0, 32, 200]),
)
def test_each_fallback_step_takes_less(
    height: int, width: int, budget: float, vae_tile: int | None, tile: int | None
) -> None:
    settings = TileSettings(tile=tile, vae_tile=vae_tile)
    ladder = build_ladder(settings, height, width, CPU, TINY, Budget(budget, budget))
    assert ladder
    estimates = [TINY.estimate(rung, height, width) for rung in ladder]
    assert all(later <= earlier for earlier, later in zip(estimates, estimates[1:], strict=False))
    assert estimates[0] <= budget or len(ladder) == 1
    assert [rung.name for rung in ladder] == [name for name in RUNGS if name in {rung.name for rung in ladder}]
    assert all(rung.vae_tile == 0 for rung in ladder) or vae_tile != 0
    assert all(rung.tile >= 2048 for rung in ladder) or tile != 0


def test_on_a_gpu_the_ladder_ends_on_the_cpu() -> None:
    cuda, large = torch.device("cuda"), Budget(1e12, 1e12)
    ladder = build_ladder(TileSettings(), 300, 300, cuda, TINY, large)
    assert [rung.name for rung in ladder] == [*RUNGS[:2], "maps on the host", *RUNGS[2:], "offload", "CPU"]
    assert [rung.map_device for rung in ladder] == [CPU, cuda, *[CPU] * 5]
    assert ladder[0].tiles_per_pass == 8
    assert ladder[-2].sequential
    assert ladder[-1].device == CPU


def test_on_a_gpu_maps_stay_there_where_nothing_else_was_asked_for() -> None:
    cuda, large = torch.device("cuda"), Budget(1e12, 1e12)
    asked = build_ladder(TileSettings(vae_tile=32), 300, 300, cuda, TINY, large)
    assert {rung.map_device for rung in asked} == {CPU}
    assert asked[0].name == "maps on the host"
    kept, copied = build_ladder(TileSettings(), 300, 300, cuda, TINY, large)[1:3]
    assert TINY.vae_bytes(kept, 300, 300) > TINY.vae_bytes(copied, 300, 300)
    assert kept.map_storage.device == cuda
    beyond = build_ladder(TileSettings(), 300, 300, cuda, replace(TINY, max_exact_latents=1000), large)
    assert {rung.map_device for rung in beyond} == {CPU}, "estimated tiles keep no maps"


def test_on_a_gpu_no_map_is_larger_than_its_kernels_take_unless_it_was_asked_for() -> None:
    full, large = replace(TINY, vae_channels=256, factor=8, itemsize=2, max_exact_latents=1 << 18), Budget(1e12, 1e12)
    for side, device, first in ((361, "cuda", "whole"), (363, "cuda", "tiled VAE"), (363, "cpu", "whole")):
        assert build_ladder(TileSettings(), side, side, torch.device(device), full, large)[0].name == first
    assert build_ladder(TileSettings(vae_tile=0), 363, 363, torch.device("cuda"), full, large)[0].name == "whole"
    exact, metal = replace(full, itemsize=4), torch.device("mps")
    assert [build_ladder(TileSettings(), side, side, metal, exact, large)[0].name for side in (255, 256)] == [
        "whole",
        "tiled VAE",
    ]
    assert max_batch(build_ladder(TileSettings(), 128, 128, metal, exact, large)[0], 128, 128, exact, large, 8) == 3
    whole = build_ladder(TileSettings(), 256, 256, torch.device("cuda"), full, large)[0]
    assert max_batch(whole, 256, 256, full, large, 8) == 1, "two of 2048x2048 would be"
    assert max_batch(whole, 128, 128, full, large, 8) == 7
    covering = replace(whole, vae_tile=128)
    assert max_batch(covering, 128, 128, full, large, 8) == 7, "a tile as large as the picture is none"
    assert full.estimate(covering, 128, 128, 4) == full.estimate(whole, 128, 128, 4)


def test_the_plan_knows_what_wide_attention_holds() -> None:
    small = MemoryPlan("smaller tiles", torch.device("cuda"), 24, 48, 16)
    wide, narrow = (replace(TINY, attention_width=width, itemsize=2) for width in (512, 0))
    scores, known = 2 * 4 * SCORES_PER_CHUNK, 2 * 2 * 512 * 512 * 512
    assert wide.vae_bytes(small, 512, 512) == scores + known > narrow.vae_bytes(small, 512, 512)
    assert wide.attention_bytes(replace(small, device=CPU), 512, 512) == known


STEERING = """
import torch
from seesr.diffusion.sampler import sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.steering import Steering
from seesr.machine.memory import PeakMemory, used_bytes

def run(side):
    latents = torch.randn(10, 16, side, side)
    before, peak = used_bytes(latents.device), PeakMemory(latents.device)
    sample(lambda noisy, _: noisy * 0.5, schedule, latents, 2, Steering(10).step)
    return (peak.bytes() - before) / latents.nbytes + 1

schedule = NoiseSchedule.from_config({"beta_start": 0.001, "beta_end": 0.01, "beta_schedule": "scaled_linear"})
with torch.inference_mode():
    run(8)
    print(run(256))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is that of the process's whole life")
def test_the_plan_knows_what_particles_take() -> None:
    found = subprocess.run([sys.executable, "-c", STEERING], capture_output=True, text=True, check=True).stdout
    assert 0.5 * LATENT_COPIES < float(found) <= LATENT_COPIES
    one, ten = (build_ladder(TileSettings(particles=n), 1024, 1024, CPU, TINY, Budget(1e12, 1e12))[0] for n in (1, 10))
    further = TINY.denoiser_bytes(ten, 1024, 1024) - TINY.denoiser_bytes(one, 1024, 1024)
    assert further == 9 * LATENT_COPIES * 1024 * 1024 * TINY.latent_channels * 4


def test_weights_that_do_not_fit_on_a_gpu_go_there_one_by_one() -> None:
    heavy = replace(TINY, weight_bytes=5_000_000_000, largest_weight_bytes=3_000_000_000)
    ladder = build_ladder(TileSettings(), 100, 100, torch.device("cuda"), heavy, Budget(4e9, 1e11))
    assert [rung.name for rung in ladder] == ["offload", "CPU"]
    assert build_ladder(TileSettings(), 100, 100, torch.device("cuda"), heavy, Budget(2e9, 1e11))[0].name == "CPU"
    assert build_ladder(TileSettings(), 100, 100, torch.device("cuda"), heavy, Budget(8e9, 1e9))[0].map_limit < 1e9


def test_tile_options_are_checked() -> None:
    with pytest.raises(OptionError, match=r"^tile is 5; give 0 \(no tiling\) or at least 16\.$"):
        Options.make(tile=5)
    with pytest.raises(OptionError, match="tile_overlap is 60; it may be at most half of the tile"):
        Options.make(tile=64, tile_overlap=60)
    with pytest.raises(OptionError, match=r"^tile_overlap is 97; it may be at most half of the tile \(96\)\. Give a larger"):
        build_ladder(TileSettings(tile_overlap=97), 64, 64, CPU, TINY, Budget(1e12, 1e12))
    assert build_ladder(TileSettings(tile_overlap=96), 64, 64, CPU, TINY, Budget(1e12, 1e12))[0].overlap == 96
    assert Options.make("memory").vae_tile == 32


def test_freed_memory_is_kept_where_there_is_room() -> None:
    rung = MemoryPlan("whole", CPU, vae_tile=0, tile=96, overlap=32)
    taken, twice = (TINY.estimate(rung, 100, 100, batch) for batch in (1, 2))
    large, small = (Budget(share * taken, share * taken) for share in (3.0, 1.5))
    assert can_retain_heap(rung, taken, large)
    assert not can_retain_heap(rung, taken, small)
    assert not can_retain_heap(rung, twice, large)
    assert not can_retain_heap(replace(rung, sequential=True), taken, large)
    assert not can_retain_heap(replace(rung, device=torch.device("cuda")), taken, large)


def test_a_rung_can_be_made_by_hand() -> None:
    rung = MemoryPlan("whole", CPU, 0, 96, 32)
    assert rung.tiles(50, 200).corners == [(0, 0), (0, 56), (0, 112)]
    assert replace(rung, tile=300).tiles(50, 200).corners == [(0, 0)]
