"""NaN or infinity in half precision: it is computed again in float32, or said."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seesr import ComputeError, Upscaler
from seesr.notes import Notes
from seesr.planning.nan_guard import in_float32, run_with_nan_guard


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
