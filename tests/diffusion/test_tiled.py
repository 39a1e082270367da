"""The denoiser in tiles computes what it computes whole."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seesr.diffusion.tiled import predict_tiled
from seesr.tiling import Tiles


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
