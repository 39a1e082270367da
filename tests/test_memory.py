"""Any size in bounded memory: the plan, the ladder down when memory runs out, tiles, batches, precision."""

from __future__ import annotations

import contextvars
import ctypes
import functools
import gc
import json
import math
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import IMAGES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import seesr.autoencoder.vae
import seesr.engine
import seesr.machine.memory
import seesr.upscaler
from seesr import ComputeError, OptionError, Options, OutOfMemoryError, Result, Upscaler
from seesr.autoencoder.feature_maps import FileBand
from seesr.diffusion.tiled import predict_tiled
from seesr.errors import Attempt, TimeLimitError
from seesr.evaluation.seams import seam_ratio, tile_borders
from seesr.images.colour import low_frequencies, wavelet_fix
from seesr.images.sizes import SizeRequirements, plan_sizes, to_input_box
from seesr.kernels.attention import SCORES_PER_CHUNK
from seesr.lru_cache import LRUCache
from seesr.machine.device import CPU, choose_device, choose_dtype, supported_dtype
from seesr.machine.memory import PeakMemory
from seesr.machine.out_of_memory import is_out_of_memory
from seesr.machine.worker_thread import WorkerThread
from seesr.notes import Notes
from seesr.options import Limits, parse_bytes
from seesr.planning.costs import LATENT_COPIES, CostModel
from seesr.planning.fallback import run_with_fallback
from seesr.planning.ladder import build_ladder, can_retain_heap, max_batch
from seesr.planning.nan_guard import in_float32, run_with_nan_guard
from seesr.planning.plan import Budget, MemoryPlan, TileSettings
from seesr.stages import Stages
from seesr.tiling import Tiles, balanced_side, tile_starts

STAGES = ["clean", "resize", "tags", "prompt", "encode", "denoise", "vae_decode", "colour", "finish"]
RUNGS = ["whole", "tiled VAE", "tiled latents", "smaller tiles"]


class Fault(TorchDispatchMode):
    """Raises out of memory at the n-th operation of a stage, in each of the first `times` runs of that stage."""

    def __init__(self, stage: str, number: int, times: int) -> None:
        super().__init__()
        self.stage, self.number, self.times = stage, number, times
        self.now, self.count = "", 0

    def enter(self, stage: str) -> None:
        self.now, self.count = stage, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if self.now == self.stage and self.times > 0:
            self.count += 1
            if self.count == self.number:
                self.times -= 1
                raise torch.OutOfMemoryError("injected: no memory for this")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fault]:
    made: list[Fault] = []
    original = Stages.stage

    @contextmanager
    def stage(self: Stages, name: str) -> Iterator[Any]:
        for one in made:
            one.enter(name)
        with original(self, name) as note:
            yield note

    monkeypatch.setattr(Stages, "stage", stage)

    def make(*arguments: Any) -> Fault:
        made.append(Fault(*arguments))
        return made[-1]

    return make


@pytest.fixture(scope="module")
def large_photo() -> Image.Image:
    """72 latents a side when it is enlarged 4.5 times: more than a tile of 64, so that every rung differs."""
    return Image.open(IMAGES / "coffee.png").convert("RGB").crop((200, 100, 260, 160))


def upscale(upscaler: Upscaler, photo: Image.Image) -> Result:
    return upscaler.upscale(photo, scale=4.5, steps=1, seed=3)


@pytest.fixture(scope="module")
def by_rung(upscaler: Upscaler, large_photo: Image.Image) -> dict[str, Image.Image]:
    """The picture of each rung, run directly."""
    made, plan = {}, seesr.engine.build_ladder
    with pytest.MonkeyPatch.context() as patch:
        for number in range(len(RUNGS)):
            patch.setattr(seesr.engine, "build_ladder", lambda *values, number=number: plan(*values)[number:])
            result = upscale(upscaler, large_photo)
            assert not result.attempts
            made[result.rung] = result.image
    assert list(made) == RUNGS
    return made


def alive() -> int:
    """Bytes of all tensors that something still refers to."""
    gc.collect()
    return sum(one.nbytes for one in gc.get_objects() if type(one) is Tensor and one.device.type == "cpu")


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_once_in_any_stage(
    upscaler: Upscaler,
    large_photo: Image.Image,
    by_rung: dict[str, Image.Image],
    fault: Callable[..., Fault],
    stage: str,
    number: int,
) -> None:
    upscaler.clear_caches()
    with fault(stage, number, 1) as injected:
        result = upscale(upscaler, large_photo)
    assert injected.times == 0
    assert result.rung == "tiled VAE"
    assert [(attempt.rung, attempt.reason) for attempt in result.attempts] == [("whole", "injected: no memory for this")]
    assert result.image.tobytes() == by_rung["tiled VAE"].tobytes()


@pytest.mark.parametrize(
    ("stage", "times"), [("encode", 2), ("denoise", 2), ("vae_decode", 2), *((stage, 3) for stage in STAGES)]
)
def test_memory_that_runs_out_again_and_again(
    upscaler: Upscaler,
    large_photo: Image.Image,
    by_rung: dict[str, Image.Image],
    fault: Callable[..., Fault],
    stage: str,
    times: int,
) -> None:
    upscaler.clear_caches()
    with fault(stage, 2, times):
        result = upscale(upscaler, large_photo)
    assert result.rung == RUNGS[times]
    assert [attempt.rung for attempt in result.attempts] == RUNGS[:times]
    assert result.image.tobytes() == by_rung[result.rung].tobytes()


def test_nothing_of_a_failed_attempt_is_alive_in_the_next(
    upscaler: Upscaler, large_photo: Image.Image, fault: Callable[..., Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    upscale(upscaler, large_photo)
    before, seen, run = alive(), [], Upscaler._run

    def watched(self: Upscaler, *arguments: Any) -> Any:
        seen.append(alive() - before)
        return run(self, *arguments)

    monkeypatch.setattr(Upscaler, "_run", watched)
    with fault("colour", 3, 2):
        assert len(upscale(upscaler, large_photo).attempts) == 2
    assert len(seen) == 3
    assert max(seen) <= 0


def test_memory_is_given_back_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[object]()
    monkeypatch.setattr("seesr.planning.fallback.release_memory", done.append)

    def run(rung: MemoryPlan) -> None:
        done.append(rung.name)
        if rung.name == "whole":
            raise MemoryError

    run_with_fallback([MemoryPlan("whole", CPU, 0, 96, 32), MemoryPlan("tiled VAE", CPU, 48, 96, 32)], run)
    assert done == ["whole", CPU, "tiled VAE"]


def test_pictures_that_do_not_fit_together_go_one_by_one(
    upscaler: Upscaler, small_photo: Image.Image, fault: Callable[..., Fault]
) -> None:
    alone = upscaler.upscale(small_photo, scale=2, steps=1, seed=0)
    with fault("denoise", 5, 1):
        results = upscaler.upscale_many([small_photo, small_photo], together=2, scale=2, steps=1, seed=0)
    assert [result.rung for result in results] == ["whole", "whole"]
    assert [result.attempts for result in results] == [[Attempt("whole, 2 pictures", "injected: no memory for this")]] * 2
    assert all(result.image.tobytes() == alone.image.tobytes() for result in results)


def test_the_ladder_ends_with_a_clear_error_and_leaves_nothing(
    upscaler: Upscaler, large_photo: Image.Image, fault: Callable[..., Fault]
) -> None:
    upscale(upscaler, large_photo)
    before = alive()
    with (
        fault("vae_decode", 25, 99),
        pytest.raises(OutOfMemoryError, match=r"with every plan \(whole, tiled VAE, tiled latents, smaller tiles; injected"),
    ):
        upscale(upscaler, large_photo)
    assert alive() <= before
    assert upscale(upscaler, large_photo).rung == "whole"


def test_looking_without_memory_ends_with_a_clear_error(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("injected")

    upscaler.clear_caches()
    monkeypatch.setattr(upscaler.engine.components["ram"], "encode", fail)
    with pytest.raises(OutOfMemoryError, match=r"memory ran out on cpu while RAM looked at 48x40 pixels\."):
        upscaler.tags(small_photo)


def test_loading_without_memory_ends_with_a_clear_error_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Tensor]] = []

    def fail(*_: object, **__: object) -> None:
        loaded = torch.zeros(8)
        held.append(weakref.ref(loaded))
        raise MemoryError

    monkeypatch.setattr("seesr.networks.load_ram", fail)
    with pytest.raises(OutOfMemoryError, match=r"while the models of tiny \(embedded\) were loaded in float32\.") as caught:
        Upscaler.load(device="cpu", weights="tiny")
    assert caught.value.__context__ is not None
    assert held[0]() is None, "what was loaded is let go, while the error is still looked at"


def test_models_that_do_not_fit_together_are_read_one_by_one(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = upscaler.upscale(small_photo, seed=1).image.tobytes()
    read: list[Path] = []

    def load_controlnet(folder: Path, dtype: torch.dtype) -> Any:
        read.append(folder)
        # Once all that was read before is still there.
        with monkeypatch.context() as patch:
            if len(read) == 1:
                patch.setattr("seesr.weights.tensors.memory_bytes", lambda device: (0, 8 << 30))
            return seesr.diffusion.denoiser.load_controlnet(folder, dtype)

    monkeypatch.setattr("seesr.networks.load_controlnet", load_controlnet)
    scarce = Upscaler.load("tiny", "cpu")
    assert scarce.engine.components.sequential
    assert "memory does not suffice for all models of tiny (embedded) at once: each is read when it runs" in caplog.text
    assert scarce.upscale(small_photo, seed=1).image.tobytes() == expected


def test_no_place_for_map_files_is_no_memory_for_them(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match=r"a file for feature maps cannot be created .*; set TMPDIR to another folder"):
        FileBand(1, 8, 8, torch.float32, tmp_path / "nowhere")


def test_another_error_is_no_reason_to_try_again(
    upscaler: Upscaler, large_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(upscaler.networks.denoiser, "forward", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        upscale(upscaler, large_photo)


def test_what_counts_as_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    for text in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Invalid buffer size: 16.00 GiB",
    ):
        assert is_out_of_memory(RuntimeError(text))
    for free in (4, 6):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 10))
        text = "GET was unable to find an engine to execute this computation"
        assert is_out_of_memory(RuntimeError(text)) == (free == 4)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_a_device_without_memory_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(OutOfMemoryError, match="device 'cuda' has no memory left"):
        choose_device("cuda")


def test_all_rungs_show_the_same_picture(by_rung: dict[str, Image.Image]) -> None:
    pictures = [np.asarray(image, dtype=float) for image in by_rung.values()]
    assert np.abs(pictures[1] - pictures[0]).max() <= 1, "the tiled VAE is exact"
    for picture in pictures[2:]:
        assert np.abs(picture - pictures[0]).mean() < 3


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


@pytest.mark.parametrize(
    ("limit", "rung", "notes"),
    [
        (80_000_000, "tiled latents", []),
        (30_000_000, "smaller tiles", ["no plan fits the memory limit; the smallest one is used"]),
    ],
)
def test_a_small_budget_is_planned_for(
    upscaler: Upscaler, large_photo: Image.Image, monkeypatch: pytest.MonkeyPatch, limit: int, rung: str, notes: list[str]
) -> None:
    monkeypatch.setattr("seesr.planning.plan.used_bytes", lambda device: 0)
    monkeypatch.setattr(upscaler.engine, "memory_limit", limit)
    result = upscale(upscaler, large_photo)
    assert (result.rung, result.notes) == (rung, notes)
    assert result.vae == "exact tiles"
    assert not result.attempts


@pytest.mark.parametrize(("text", "size"), [("4GB", 4e9), ("4 gib", 4 << 30), ("500MB", 5e8), ("1.5k", 1500), ("77", 77)])
def test_sizes_of_memory(text: str, size: float) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "many", "-3GB", "4XB", "0"])
def test_bad_sizes_of_memory(text: str) -> None:
    with pytest.raises(OptionError, match="the memory limit is"):
        parse_bytes(text)


def test_tile_options_are_checked() -> None:
    with pytest.raises(OptionError, match=r"^tile is 5; give 0 \(no tiling\) or at least 16\.$"):
        Options.make(tile=5)
    with pytest.raises(OptionError, match="tile_overlap is 60; it may be at most half of the tile"):
        Options.make(tile=64, tile_overlap=60)
    with pytest.raises(OptionError, match=r"^tile_overlap is 97; it may be at most half of the tile \(96\)\. Give a larger"):
        build_ladder(TileSettings(tile_overlap=97), 64, 64, CPU, TINY, Budget(1e12, 1e12))
    assert build_ladder(TileSettings(tile_overlap=96), 64, 64, CPU, TINY, Budget(1e12, 1e12))[0].overlap == 96
    assert Options.make("memory").vae_tile == 32


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 3000), tile=st.integers(16, 128), share=st.floats(0, 0.5))
def test_tiles_cover_a_side(length: int, tile: int, share: float) -> None:
    overlap = int(tile * share)
    most = math.ceil((length - overlap) / (tile - overlap))
    tile = balanced_side(length, tile, overlap)
    starts = tile_starts(length, tile, overlap)
    assert len(starts) <= max(1, most)
    assert starts[0] == 0
    assert max(starts) == max(0, length - tile)
    assert all(0 < later - earlier <= tile - overlap for earlier, later in zip(starts, starts[1:], strict=False))


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    tiles_per_pass=st.integers(1, 5),
    batch=st.integers(1, 3),
    fixed=st.booleans(),
)
def test_a_pointwise_model_gives_the_same_in_tiles(
    height: int, width: int, tiles_per_pass: int, batch: int, fixed: bool
) -> None:
    latents, image = torch.randn(batch, 4, height, width), torch.rand(batch, 3, 8 * height, 8 * width)

    def model(noisy: Tensor, timestep: int, pixels: Tensor, numbers: list[int]) -> Tensor:
        assert len(noisy) == len(pixels) == batch * len(numbers)
        return noisy * timestep + torch.nn.functional.avg_pool2d(pixels, 8).sum(dim=1, keepdim=True)

    found = predict_tiled(model, latents, 2, image, Tiles(height, width, 16, 6, tiles_per_pass, fixed))
    assert torch.allclose(found, model(latents, 2, image, [0]), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(height=st.integers(17, 90), width=st.integers(17, 90))
def test_fixed_tiles_go_through_in_one_shape(height: int, width: int) -> None:
    """Compiled networks would be compiled anew for another."""
    tiles, shapes = Tiles(height, width, 16, 6, 4, fixed=True), set()

    def model(noisy: Tensor, timestep: int, pixels: Tensor, numbers: list[int]) -> Tensor:
        shapes.add((noisy.shape, pixels.shape))
        return noisy

    predict_tiled(model, torch.randn(2, 4, height, width), 0, torch.rand(2, 3, 8 * height, 8 * width), tiles)
    assert shapes == {((8, 4, 16, 16), (8, 3, 128, 128))}


def test_a_picture_does_not_depend_on_its_batch(upscaler: Upscaler) -> None:
    photo = Image.open(IMAGES / "chelsea.png").convert("RGB")
    parts = [photo.crop((x, 50, x + 40, 90)) for x in (50, 120, 190)]
    together = upscaler.upscale_many([*parts, photo.crop((0, 0, 30, 30))], together=8, scale=2, steps=2, seed=1)
    assert [result.image.size for result in together] == [(80, 80)] * 3 + [(60, 60)]
    assert together[0].seconds is together[2].seconds, "they ran together"
    for part, result in zip(parts, together, strict=False):
        alone = upscaler.upscale(part, scale=2, steps=2, seed=1).image
        assert np.abs(np.asarray(alone, dtype=int) - np.asarray(result.image, dtype=int)).max() <= 1


def test_batches_agree_in_float32(upscaler: Upscaler) -> None:
    photo = Image.open(IMAGES / "chelsea.png").convert("RGB")
    parts = [photo.crop((x, 50, x + 40, 90)) for x in (50, 120)]
    captured: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(seesr.upscaler.COLOR_FIXES, "none", lambda target, source: captured.append(target) or target)
        upscaler.upscale_many(parts, together=2, scale=2, steps=2, seed=1, color_fix="none")
        for part in parts:
            upscaler.upscale(part, scale=2, steps=2, seed=1, color_fix="none")
    together, *alone = captured
    assert (together - torch.cat(alone)).abs().max() <= 1e-4


def test_tile_tags_look_at_each_tile(upscaler: Upscaler, large_photo: Image.Image) -> None:
    looked: list[tuple[int, int]] = []
    conditioner = upscaler.conditioner
    look = conditioner.tag
    conditioner.tag = lambda image: looked.append(image.size) or look(image)
    try:
        result = upscaler.upscale(large_photo, scale=4.5, steps=1, seed=0, tile=48, tile_overlap=16, tile_tags=True)
    finally:
        del conditioner.tag
    assert looked[0] == (60, 60)
    assert len(looked) == 1 + 4
    assert all(30 <= side <= 45 for size in looked[1:] for side in size)
    assert "each of 4 tiles had tags and a prompt of its own" in result.notes
    other = upscaler.upscale(large_photo, scale=4.5, steps=1, seed=0, tile=48, tile_overlap=16)
    assert result.image.tobytes() != other.image.tobytes()
    assert other.notes == []


def test_time_is_looked_at_between_tiles_with_tags_of_their_own(upscaler: Upscaler, large_photo: Image.Image) -> None:
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "tags" and total > 1:
            told.append((done, total))

    options = {"scale": 4.5, "steps": 1, "tile": 48, "tile_overlap": 16, "tile_tags": True}
    upscaler.upscale(large_photo, progress=progress, **options)
    assert told == [(number, 4) for number in range(4)]


def test_no_more_tiles_are_looked_at_than_fit_into_memory(
    upscaler: Upscaler, large_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seesr.conditioning.MAX_TAGGED_TILES", 3)
    result = upscaler.upscale(large_photo, scale=4.5, steps=1, tile=48, tile_overlap=16, tile_tags=True)
    assert result.notes == ["4 tiles, too many to look at each: tags are the whole picture's"]


def test_time_counts_from_before_a_picture_is_decoded(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(upscaler.engine, "clock", lambda: now[0])
    decode = seesr.upscaler.read_picture

    def slow(*given: Any) -> Any:
        now[0] += 61
        return decode(*given)

    monkeypatch.setattr("seesr.upscaler.read_picture", slow)
    monkeypatch.setattr(upscaler.engine, "limits", Limits(seconds=60))
    with pytest.raises(TimeLimitError, match="longer than 60 seconds"):
        upscaler.upscale(small_photo, scale=1)


def test_a_small_limit_of_results_does_not_refuse_what_models_work_on_larger() -> None:
    needs, limits = SizeRequirements(512, 8), Limits(output_side=400)
    assert plan_sizes((100, 75), 4, None, needs, limits).working == (683, 512)
    with pytest.raises(OptionError, match="which makes the longer one 5120, more than 2048"):
        plan_sizes((100, 10), 4, None, needs, limits)


def test_a_network_is_as_it_was_though_an_exception_comes_while_it_goes_back() -> None:
    class Interrupted(nn.Linear):
        left = 1

        def to(self, dtype: torch.dtype) -> Interrupted:
            if dtype == torch.bfloat16 and self.left:
                self.left -= 1
                self.weight.data = self.weight.data.to(dtype)
                raise KeyboardInterrupt
            return super().to(dtype)

    network = Interrupted(2, 2).bfloat16()
    with pytest.raises(KeyboardInterrupt), in_float32([network]):
        assert network.bias.dtype == torch.float32
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    scale=st.floats(1, 8),
    margin=st.sampled_from([0, 16]),
    data=st.data(),
)
def test_parts_of_the_input_lie_inside_it(width: int, height: int, scale: float, margin: int, data: st.DataObject) -> None:
    sizes = plan_sizes((width, height), scale, None, SizeRequirements(16, 8, margin), Limits(output_side=100_000))
    left, top = (data.draw(st.integers(0, side - 1)) for side in sizes.padded)
    box = to_input_box(sizes, (left, top, left + 64, top + 64))
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height
    assert to_input_box(sizes, (0, 0, *sizes.padded)) == (0, 0, width, height)


def test_forced_small_tiles_leave_no_seam(upscaler: Upscaler) -> None:
    photo = Image.open(IMAGES / "astronaut.png").convert("RGB").crop((100, 0, 180, 80))
    tiled = upscaler.upscale(photo, scale=4, steps=2, seed=0, tile=48, tile_overlap=16, vae_tile=32)
    whole = upscaler.upscale(photo, scale=4, steps=2, seed=0, tile=0, vae_tile=0)
    height, width = (side // 4 for side in tiled.sizes.padded[::-1])
    borders = tile_borders(Tiles(height, width, 48, 16), 4, tiled.sizes)
    assert min(map(len, borders)) >= 2
    # The same lines without tiles: what the picture itself has there does not count.
    assert seam_ratio(tiled.image, *borders) == pytest.approx(seam_ratio(whole.image, *borders), rel=0.05)
    assert seam_ratio(tiled.image, *borders, period=4) == pytest.approx(1, abs=0.25)


def test_a_seam_is_seen() -> None:
    pixels = np.asarray(Image.open(IMAGES / "astronaut.png").convert("RGB"), dtype=int).copy()
    before = seam_ratio(Image.fromarray(pixels.astype(np.uint8)), [200], [200])
    pixels[200:] += 12
    pixels[:, 200:] += 12
    assert seam_ratio(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), [200], [200]) > 1.5 * before


def test_the_colour_fix_is_the_same_in_bands() -> None:
    target, source = torch.rand(1, 3, 1200, 40), torch.rand(1, 3, 1200, 40)
    expected = target - low_frequencies(target) + low_frequencies(source)
    assert (wavelet_fix(target, source) - expected).abs().max() < 1e-5


def test_nan_is_computed_again_in_float32() -> None:
    layer, notes = torch.nn.Linear(1, 1).to(torch.float16).requires_grad_(False), Notes()
    layer.weight.fill_(300.0)
    layer.bias.zero_()

    def compute() -> Tensor:
        return layer(torch.full((1, 1), 300.0, dtype=layer.weight.dtype))

    assert run_with_nan_guard("vae_decode", [layer], compute, [notes]).item() == 90_000
    assert layer.weight.dtype == torch.float16
    assert list(notes) == ["vae_decode gave NaN or infinity in the networks' precision and was computed in float32"]
    layer.weight.fill_(float("nan"))
    with pytest.raises(ComputeError, match="vae_decode gives NaN or infinity"):
        run_with_nan_guard("vae_decode", [layer], compute, [notes])


def test_damaged_weights_never_make_a_black_picture(small_photo: Image.Image) -> None:
    upscaler = Upscaler.load(device="cpu", dtype="float32")
    with torch.no_grad():
        upscaler.engine.components["vae"].decoder.conv_in.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ComputeError, match="the weights are damaged"):
        upscaler.upscale(small_photo, scale=1, steps=1)


def test_recent_forgets_what_was_not_asked_for_the_longest() -> None:
    recent, computed = LRUCache(2), []

    def ask(key: str) -> str:
        return recent.get(key, lambda: computed.append(key) or key.upper())

    assert [ask(key) for key in "abacb"] == list("ABACB")
    assert computed == ["a", "b", "c", "b"]
    recent.clear()
    assert len(recent) == 0


def test_a_picture_seen_again_is_not_tagged_again(upscaler: Upscaler, small_photo: Image.Image) -> None:
    upscaler.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        calls, encode = [], upscaler.engine.components["ram"].encode
        patch.setattr(upscaler.engine.components["ram"], "encode", lambda pixels: calls.append(1) or encode(pixels))
        for _ in range(3):
            upscaler.upscale(small_photo, scale=1, steps=1)
    assert len(calls) == 1


def test_sequential_keeps_one_network_at_a_time_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    components, moves = Upscaler.load(device="cpu", dtype="float32").engine.components, []
    # A device that is not the CPU, of which only the name counts here.
    components.device, components.sequential = torch.device("meta"), True
    for name, network in components.networks.items():
        monkeypatch.setattr(network, "to", lambda device, name=name: moves.append((name, device.type)))
    plan = MemoryPlan("whole", components.device, 0, 96, 32, sequential=True)
    with components.on(plan):
        for names in (["ram"], ["vae"], ["unet", "controlnet"]):
            with components.running(*names):
                assert moves == [(name, "meta") for name in names]
            assert moves[len(names) :] == [(name, "cpu") for name in names]
            moves.clear()


def test_sequential_on_a_cpu_leaves_what_does_not_run_in_its_files(upscaler: Upscaler, small_photo: Image.Image) -> None:
    usual = upscaler.upscale(small_photo, scale=2, steps=1, seed=0)
    components = (one_by_one := Upscaler.load(device="cpu", dtype="float32", sequential=True)).engine.components

    def in_memory() -> list[str]:
        networks = components.networks.items()
        return [name for name, network in networks if any(not weight.is_meta for weight in network.parameters())]

    with components.on(MemoryPlan("whole", CPU, 0, 96, 32, sequential=True)):
        assert in_memory() == []
        with components.running("unet", "controlnet"):
            assert in_memory() == ["unet", "controlnet"]
    for _ in range(2):
        assert one_by_one.upscale(small_photo, scale=2, steps=1, seed=0).image.tobytes() == usual.image.tobytes()
        assert in_memory() == []
    assert one_by_one.engine.costs == upscaler.engine.costs, "the plan knows their sizes all the same"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), KeyboardInterrupt()], ids=["memory", "cancel"])
def test_a_move_that_fails_leaves_everything_where_it_was(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    components, moves = Upscaler.load(device="cpu", dtype="float32").engine.components, []

    def move(name: str, device: torch.device) -> None:
        moves.append((name, device.type))
        if (name, device.type) == ("unet", "meta"):
            raise error

    for name, network in components.networks.items():
        monkeypatch.setattr(network, "to", functools.partial(move, name))
    with pytest.raises(type(error)), components.on(MemoryPlan("whole", torch.device("meta"), 0, 96, 32)):
        pass
    names = list(components.networks)
    begun = names[: names.index("unet") + 1]
    assert moves == [*((name, "meta") for name in begun), *((name, "cpu") for name in names)]
    with components.on(MemoryPlan("whole", CPU, 0, 96, 32)):
        assert len(moves) == len(begun) + len(names), "all are there already"


def test_estimated_tiles_are_near_and_say_so(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.open(IMAGES / "coffee.png").convert("RGB").crop((150, 50, 310, 170))
    exact = upscaler.upscale(photo, scale=3, steps=1, seed=0)
    monkeypatch.setattr(seesr.autoencoder.vae, "MAX_EXACT_MAP_BYTES", 1000)
    estimated = upscaler.upscale(photo, scale=3, steps=1, seed=0, vae_tile=32)
    assert (exact.vae, estimated.vae) == ("whole", "estimated tiles")
    assert not exact.notes
    assert estimated.notes == ["too large for an exact tiled VAE: its statistics were estimated from sample tiles"]
    error = np.asarray(exact.image, dtype=float) - np.asarray(estimated.image, dtype=float)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 40


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = "anon 5\ninactive_file 150000\nactive_file 50000\n"
    for name, text in (("max", "1000000"), ("current", "700000"), ("stat", statistics)):
        (tmp_path / name).write_text(text)
    group = (*(str(tmp_path / name) for name in ("max", "current", "stat")), "")
    monkeypatch.setattr(seesr.machine.memory, "CGROUP_FILES", [group])
    assert seesr.machine.memory.memory_bytes(CPU) == (500_000, 1_000_000)
    (tmp_path / "max").write_text("max")
    assert seesr.machine.memory.memory_bytes(CPU)[1] > 1_000_000


def test_a_memory_limit_is_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.open(IMAGES / "astronaut.png").convert("RGB").resize((256, 256)).save(source)
    program = [sys.executable, "-m", "seesr", "upscale", "--device", "cpu"]
    command = [*program, str(source), "-o", str(target), "--json", "--steps", "1"]
    # PyTorch's CUDA build takes hundreds of megabytes more than that for CPUs, before anything is computed.
    load = "import psutil, seesr; seesr.Upscaler.load('tiny', 'cpu', 'float32'); print(psutil.Process().memory_info().rss)"
    loaded = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    limit = int(loaded.stdout) + 425_000_000
    found = subprocess.run(
        [*command, "--memory-limit", str(limit), "--dtype", "float32"], capture_output=True, text=True, check=True
    )
    record = json.loads(found.stdout)
    assert record["rung"] != "whole"
    assert record["peak_memory"] <= limit


def test_peak_memory_sees_what_was_freed() -> None:
    peak = PeakMemory(CPU)
    if not peak.resets:
        pytest.skip("the system does not let a process reset its mark")
    before = peak.bytes()
    torch.ones(50_000_000)
    assert peak.bytes() >= before + 150_000_000


MAPS = """
import resource, sys, threading
import torch
from seesr.machine.device import CPU
from seesr.machine.allocator import retain_heap, single_malloc_arena
from seesr.machine.memory import used_bytes

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def run():
    made = [faults()]
    held = used_bytes(CPU)
    with retain_heap(256 << 20):
        made.append(used_bytes(CPU) - held)
        faults()
        made.append(faults())
    print(*made, faults())

if sys.argv[1] == "thread":
    single_malloc_arena()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
else:
    run()
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc only")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_large_maps_are_not_mapped_anew_while_freed_memory_is_kept(where: str) -> None:
    """Counted in pages that the system had to hand out and clear, before, in between and after."""
    found = subprocess.run([sys.executable, "-c", MAPS, where], capture_output=True, text=True, check=True)
    before, taken, kept, after = map(int, found.stdout.split())
    assert taken < 16 << 20, "what is expected is not taken in advance"
    # Pages may be as large as 2 MiB where the system makes them so by itself.
    assert min(before, after) >= 8 * 32
    assert kept < before / 8


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


def test_all_calls_run_on_one_thread_and_in_the_callers_context() -> None:
    asked, own = contextvars.ContextVar("asked", default=0), WorkerThread()

    def ask(number: int) -> tuple[int, int]:
        asked.set(number)
        return own.run(lambda: (asked.get(), threading.get_ident()))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(1, 20)))
    assert [number for number, _ in answers] == list(range(1, 20))
    assert len({thread for _, thread in answers}) == 1
    with pytest.raises(ValueError, match="invalid literal"):
        own.run(lambda: int("no number"))


@pytest.mark.parametrize("seconds", [0.001, 0.06])
def test_an_interrupt_reaches_the_call_and_nothing_after_it(seconds: float) -> None:
    own, reached = WorkerThread(), []

    def work() -> None:
        end = time.monotonic() + 5
        try:
            while time.monotonic() < end:
                pass
        except InterruptedError:
            reached.append(True)
            raise

    for _ in range(10):
        threads: queue.Queue[int] = queue.Queue()

        def wait_for_work(threads: queue.Queue[int] = threads) -> str:
            try:
                threads.put(threading.get_ident())
                own.run(work)
            except InterruptedError:
                return "interrupted"
            return "done"

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(wait_for_work)
            caller = threads.get()
            time.sleep(seconds)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))
            assert answer.result(4) == "interrupted"
        started = time.monotonic()
        assert own.run(lambda: 7) == 7
        assert time.monotonic() - started < 4, "the call itself has ended"
    assert seconds < 0.01 or len(reached) == 10


def test_a_second_interrupt_waits_for_the_end_too() -> None:
    own, begun, reached, ended = WorkerThread(), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        try:
            begun.set()
            while True:
                pass
        except InterruptedError:
            reached.set()
            time.sleep(0.3)
        finally:
            time.sleep(0.1)
            ended.set()

    def interrupt(caller: int) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))

    callers: queue.Queue[int] = queue.Queue()

    def wait_for_work() -> bool:
        callers.put(threading.get_ident())
        try:
            own.run(work)
        except InterruptedError:
            return ended.is_set()
        return False

    with ThreadPoolExecutor(1) as pool:
        answer, caller = pool.submit(wait_for_work), callers.get()
        assert begun.wait(4)
        interrupt(caller)
        assert reached.wait(4)
        interrupt(caller)
        assert answer.result(4), "it went on before the call had ended"
    assert own.run(lambda: 7) == 7


def test_a_call_that_was_interrupted_before_it_began_never_begins() -> None:
    own, begun, free = WorkerThread(), [], threading.Event()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(own.run, free.wait)
        callers: queue.Queue[int] = queue.Queue()

        def wait_behind() -> None:
            callers.put(threading.get_ident())
            own.run(lambda: begun.append(True))

        waiting = pool.submit(wait_behind)
        caller = callers.get()
        time.sleep(0.1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))
        with pytest.raises(InterruptedError):
            waiting.result(4)
        free.set()
    own.run(lambda: None)
    assert begun == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_call_that_fails_lets_go_of_what_it_held(interrupted: bool) -> None:
    own, held, caller = WorkerThread(), [], threading.get_ident()

    def work() -> None:
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        if not interrupted:
            raise InterruptedError
        time.sleep(0.1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pass

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(InterruptedError):
            own.run(work)
        assert held[0]() is None
    finally:
        gc.enable()


GIB = 2**30


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "name", "memory", "chosen"),
    [
        (True, True, "Intel Xeon", 64 * GIB, torch.bfloat16),
        (False, True, "AMD EPYC 9654", 64 * GIB, torch.bfloat16),
        (False, True, "Intel Xeon", 64 * GIB, torch.float32),
        (False, True, "Intel Xeon", 8 * GIB, torch.bfloat16),
        (False, False, "Intel Xeon", 8 * GIB, torch.float32),
    ],
)
def test_a_cpu_computes_in_what_it_is_fastest_in_unless_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, name: str, memory: int, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name})
    assert choose_dtype("auto", CPU, memory=memory) == chosen
    assert choose_dtype("auto", CPU, "float32", memory) == torch.float32, "what the weights want goes first"
    assert choose_dtype("auto", CPU, "float16", memory) == chosen, "but for what a CPU cannot"
    assert supported_dtype(CPU, torch.float16) == torch.float32, "as a result says that came down to it"
