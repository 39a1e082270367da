"""Winograd's convolutions give what PyTorch's give, of any size, in fewer operations, where they are said to be faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import LiveBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seesr import Upscaler
from seesr.kernels import winograd as convolution
from seesr.kernels.winograd import WinogradConv2d, use_winograd, winograd

LIMIT = 3e-4
"""Of results that deviate by about one; the farthest was 1e-4 off."""


def maps(batch: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


def weights(outputs: int, inputs: int) -> Tensor:
    """Such that what they make of `maps` deviates by about one."""
    return maps(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5


def exact(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    return F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=padding)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 2),
    channels=st.integers(1, 9),
    outputs=st.integers(1, 9),
    height=st.integers(1, 38),
    width=st.integers(1, 38),
    padding=st.integers(0, 1),
    biased=st.booleans(),
    channels_last=st.booleans(),
    tiles_per_product=st.integers(1, 20),
)
def test_any_size_is_the_same(
    batch: int,
    channels: int,
    outputs: int,
    height: int,
    width: int,
    padding: int,
    biased: bool,
    channels_last: bool,
    tiles_per_product: int,
) -> None:
    x = maps(batch, channels, height + 2 - 2 * padding, width + 2 - 2 * padding)
    weight, bias = weights(outputs, channels), torch.arange(float(outputs))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, weight = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
    before = x.clone(), weight.clone(), bias.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "TILES_PER_PRODUCT", tiles_per_product)
        found = winograd(x, weight, bias if biased else None, padding)
    expected = exact(x, weight, bias if biased else None, padding)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.double(), expected, rtol=0, atol=LIMIT)
    assert all(torch.equal(now, then) for now, then in zip((x, weight, bias), before, strict=True))


def test_wide_maps_are_as_precise() -> None:
    x, weight = maps(1, 512, 32, 36).contiguous(memory_format=torch.channels_last), weights(256, 512)
    expected = exact(x, weight, None, 1)
    assert expected.std().item() == pytest.approx(1, abs=0.05)
    errors = winograd(x, weight, None, 1) - expected
    assert errors.abs().max() <= LIMIT
    assert errors.square().mean().sqrt() <= 2e-5


def test_it_holds_little_beside_the_result() -> None:
    """The transformed weights, and a product's tiles."""
    x, weight = maps(1, 128, 256, 256).contiguous(memory_format=torch.channels_last), weights(128, 128)
    with torch.inference_mode(), LiveBytes() as live:
        made = winograd(x, weight, None, 1)
    tiles = 36 * convolution.TILES_PER_PRODUCT * 128 * 4
    assert live.peak <= made.nbytes + 36 * weight[..., 0, 0].nbytes * 1.3 + 5 * tiles < 2 * made.nbytes


def operations(x: Tensor, weight: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        convolution.conv2d(x, weight, padding=1)
    return counter.get_total_flops()


def test_it_takes_fewer_operations_where_it_is_faster() -> None:
    """A quarter of the products, beside what transforms cost."""
    x, weight = maps(1, 256, 32, 32), weights(256, 256)
    direct = 2 * 9 * 256 * 256 * 32 * 32
    assert operations(x, weight) < 0.45 * direct
    for name, other, factors in [
        ("other precision", x.bfloat16(), weight.bfloat16()),
        ("few channels", x[:, :64], weight[:, :64]),
        ("few results", x, weight[:64]),
        ("small map", x[:, :, :15], weight),
    ]:
        direct = 2 * 9 * factors.shape[0] * other.shape[1:].numel()
        assert operations(other, factors) == direct, name


def test_only_convolutions_that_it_can_stand_for_are_replaced() -> None:
    torch.manual_seed(0)
    kept = [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ]
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), *kept, nn.Conv2d(4, 2, 3, padding=1, bias=False))
    x = maps(1, 3, 24, 24)
    names, parameters = list(network.state_dict()), {id(tensor) for tensor in network.parameters()}
    with torch.inference_mode():
        expected = network(x)
        use_winograd(network)
        assert torch.equal(network(x), expected)
    assert [isinstance(layer, WinogradConv2d) for layer in network] == [False] * 7 + [True]
    assert isinstance(network[0][0], WinogradConv2d)
    assert list(network.state_dict()) == names
    assert {id(tensor) for tensor in network.parameters()} == parameters


def test_gradients_are_the_same() -> None:
    x, weight, bias = maps(2, 3, 9, 11).requires_grad_(), weights(4, 3).requires_grad_(), torch.ones(4, requires_grad=True)
    found = torch.autograd.grad(winograd(x, weight, bias, 1).square().sum(), (x, weight, bias))
    expected = torch.autograd.grad(F.conv2d(x, weight, bias, padding=1).square().sum(), (x, weight, bias))
    for mine, other in zip(found, expected, strict=True):
        assert (mine - other).abs().max() <= LIMIT * other.std()


def test_a_picture_is_the_same_by_winograd_throughout(
    upscaler: Upscaler, small_photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"scale": 4, "seed": 1}
    expected = upscaler.upscale(small_photo, **options).image
    upscaler.clear_caches()
    made: set[int] = set()

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        made.add(weight.data_ptr())
        return winograd(x, weight, bias, padding)

    for name, value in [("MIN_CHANNELS", 1), ("MIN_PIXELS", 1), ("winograd", watched)]:
        monkeypatch.setattr(convolution, name, value)
    found = upscaler.upscale(small_photo, **options).image
    components = upscaler.engine.components
    vae, others = components["vae"], ("cleaner", "unet", "controlnet")
    networks = (vae.encoder, vae.decoder, *(components[name] for name in others))
    for network in networks:
        assert not made.isdisjoint(parameter.data_ptr() for parameter in network.parameters()), type(network).__name__
    difference = np.abs(np.asarray(found, float) - np.asarray(expected, float))
    assert difference.max() <= 1
    assert difference.mean() < 0.01
