"""Kernel density steering: its maths on particles made by hand, and on the embedded model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import hooked, sharing
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seesr import Upscaler
from seesr.diffusion.sampler import ddim_step, sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.steering import Steering, mean_shift, nearest_to_mean
from seesr.planning.ladder import build_ladder

SCHEDULE = NoiseSchedule.from_config(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 16),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    patch=st.integers(1, 4),
    bandwidth=st.sampled_from([None, 0.1, 1.0, 100.0]),
)
def test_identical_particles_do_not_move(count: int, height: int, width: int, patch: int, bandwidth: float | None) -> None:
    particles = torch.randn(1, 4, height, width).expand(count, -1, -1, -1)
    moved = Steering(count, bandwidth, patch).steer(particles)
    assert torch.allclose(moved, particles, atol=1e-6)


def test_of_two_clusters_the_larger_pulls() -> None:
    points = torch.tensor([[-1.0], [-1.1], [-0.9], [-1.0], [1.0], [1.1]])[None]
    shift = mean_shift(points, 1.0)[0, :, 0]
    moved = points[0, :, 0] + shift
    assert (moved[:4] - -1).abs().max() < 0.2, "the many stay where they are"
    assert (moved[4:] < points[0, 4:, 0] - 0.3).all(), "the few are drawn over"
    narrow = mean_shift(points, 0.1)[0, :, 0]
    assert narrow.abs().max() < 0.11, "a narrow kernel does not see the other cluster"


def test_an_endless_bandwidth_gives_the_mean() -> None:
    particles = torch.randn(5, 4, 6, 6)
    moved = Steering(5, 1e6, strength=1.0).steer(particles)
    assert torch.allclose(moved, particles.mean(dim=0, keepdim=True).expand(5, -1, -1, -1), atol=1e-5)


def test_the_shift_is_that_of_the_formula() -> None:
    points = torch.randn(3, 4, 8, dtype=torch.float64)
    expected = torch.empty_like(points)
    for place in range(3):
        pairs = sorted(torch.dist(points[place, i], points[place, j]) for i in range(4) for j in range(i))
        width = pairs[(len(pairs) - 1) // 2]
        for i in range(4):
            weights = [torch.exp(-0.5 * torch.dist(points[place, i], points[place, k]) ** 2 / width**2) for k in range(4)]
            expected[place, i] = sum(w * points[place, k] for k, w in enumerate(weights)) / sum(weights) - points[place, i]
    assert torch.allclose(mean_shift(points, None), expected)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_one_particle_is_plain_ddim_bit_for_bit(steps: int) -> None:
    latents = torch.randn(2, 4, 7, 5)

    def model(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        return torch.tanh(noisy * (1 + timestep / 1000))

    steered = sample(model, SCHEDULE, latents, steps, Steering(1).step)
    assert torch.equal(steered, sample(model, SCHEDULE, latents, steps, ddim_step))


def test_the_first_of_several_steps_is_not_steered() -> None:
    latents, prediction = torch.randn(2, 3, 4, 4, 4)
    step = Steering(3).step
    for timestep, next_timestep, is_steered in ((999, 499, False), (999, None, True), (499, None, True)):
        plain = ddim_step(SCHEDULE, prediction, latents, timestep, next_timestep)
        assert torch.equal(step(SCHEDULE, prediction, latents, timestep, next_timestep), plain) != is_steered


def test_the_particle_nearest_to_the_mean_is_taken_of_each_picture() -> None:
    particles = torch.tensor([0.0, 1.0, 5.0, 10.0, 11.0, 0.0])[:, None, None, None].expand(6, 2, 3, 3)
    assert nearest_to_mean(particles, 3)[:, 0, 0, 0].tolist() == [1.0, 10.0]


def test_steered_upscaling(upscaler: Upscaler, small_photo: Image.Image) -> None:
    plain = upscaler.upscale(small_photo, scale=1, steps=2, seed=3).image
    single = upscaler.upscale(small_photo, scale=1, steps=2, seed=3, kds=True, kds_particles=1).image
    unused = upscaler.upscale(small_photo, scale=1, steps=2, seed=3, kds_particles=5).image
    assert single.tobytes() == unused.tobytes() == plain.tobytes()
    steered = {"scale": 1, "steps": 2, "seed": 3, "kds": True, "kds_particles": 2}
    first, again = (upscaler.upscale(small_photo, **steered).image for _ in range(2))
    assert first.tobytes() == again.tobytes() != plain.tobytes()
    together = upscaler.upscale_many([small_photo, small_photo.rotate(180)], together=2, **steered)
    assert np.abs(np.asarray(together[0].image, dtype=int) - np.asarray(first, dtype=int)).max() <= 1
    tiled = upscaler.upscale(small_photo, tile=16, tile_overlap=8, vae_tile=16, **steered).image
    assert np.abs(np.asarray(tiled, dtype=int) - np.asarray(first, dtype=int)).mean() < 8


@pytest.mark.parametrize("tiles", [{}, {"tile": 16, "tile_overlap": 8, "vae_tile": 16}])
def test_what_is_steered_is_the_whole_picture_as_the_options_say(
    upscaler: Upscaler, small_photo: Image.Image, tiles: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, move = [], Steering.steer
    monkeypatch.setattr(Steering, "steer", lambda self, x: moved.append((self, tuple(x.shape))) or move(self, x))
    steered = {"scale": 2, "steps": 2, "seed": 3, "kds": True, "kds_particles": 3, "kds_bandwidth": 4.0, "kds_patch": 3}
    result = upscaler.upscale(small_photo, **steered, **tiles)
    (width, height), factor = result.sizes.padded, upscaler.networks.factor
    channels = upscaler.engine.components["vae"].config.latent_channels
    assert moved == [(Steering(3, 4.0, 3), (3, channels, height // factor, width // factor))], (
        "once, at the second of two steps, all tiles together"
    )


@pytest.mark.parametrize("tile", [0, 16])
def test_particles_in_passes_are_those_of_one_after_the_other(
    upscaler: Upscaler, small_photo: Image.Image, tile: int
) -> None:
    """As a GPU takes them: several particles, tiles and pictures a pass, the last pass of another number."""
    steered = {"scale": 2, "steps": 1, "seed": 3, "kds": True, "kds_particles": 3, "tile": tile}

    def run(per_pass: int) -> tuple[list[int], list[Image.Image]]:
        passes = list[int]()
        in_passes = sharing(
            upscaler, ladder=lambda *values: [replace(plan, tiles_per_pass=per_pass) for plan in build_ladder(*values)]
        )
        with hooked(in_passes.networks.denoiser, lambda _, given: passes.append(len(given[0]))):
            results = in_passes.upscale_many([small_photo, small_photo.rotate(180)], together=2, **steered)
        return passes, [result.image for result in results]

    passes, images = run(1)
    tiles, rest = divmod(len(passes), 3)
    assert (tiles > 1) == (tile > 0)
    assert rest == 0
    assert set(passes) == {2}, "pictures"
    passes, same = run(2 * tiles)
    assert passes == [2 * 2 * tiles, 2 * tiles]
    for first, second in zip(images, same, strict=True):
        assert np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max() <= 1
