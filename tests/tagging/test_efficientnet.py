"""The small RAM's encoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from seesr.tagging.efficientnet import BlockConfig, EfficientNet, InvertedResidual, SameConv2d
from seesr.tagging.ram import RAM, EfficientNetConfig, RAMConfig

SMALL = EfficientNetConfig(8, [BlockConfig(3, 1, 1, 8, 1), BlockConfig(5, 2, 6, 12, 2)], 16)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "expected"),
    [
        (4, 3, 2, [[9, 6], [6, 4]]),  # nothing above and on the left, one below and on the right
        (5, 3, 2, [[4, 6, 4], [6, 9, 6], [4, 6, 4]]),  # one everywhere
        (3, 3, 1, [[4, 6, 4], [6, 9, 6], [4, 6, 4]]),
        (4, 5, 2, [[16, 12], [12, 9]]),  # one above and on the left, two below and on the right
        (2, 1, 1, [[1, 1], [1, 1]]),
    ],
)
def test_borders_are_laid_as_tensorflow_does(side: int, kernel: int, stride: int, expected: list[list[int]]) -> None:
    convolution = SameConv2d(1, 1, kernel, stride=stride, bias=False)
    torch.nn.init.ones_(convolution.weight)
    assert convolution(torch.ones(1, 1, side, side))[0, 0].tolist() == expected


def test_a_token_for_each_square_of_pixels_and_their_mean_before_them() -> None:
    torch.manual_seed(0)
    encoder = SMALL.build(image_size=32)
    image = torch.randn(2, 3, 32, 24)
    tokens = encoder(image)
    assert tokens.shape == (2, 1 + 8 * 6, 16)
    assert torch.allclose(tokens[:, 0], tokens[:, 1:].mean(dim=1), atol=1e-6)
    # The first place sees the upper left corner and not the lower right one.
    image[..., 20:, 20:] += 1
    moved = (encoder(image) - tokens).abs().amax(dim=(0, 2))
    assert moved[1] == 0
    assert moved[-1] > 0


@pytest.mark.parametrize(("stride", "channels", "residual"), [(1, 6, True), (2, 6, False), (1, 8, False)])
def test_a_residual_goes_where_the_shapes_are_equal(stride: int, channels: int, residual: bool) -> None:
    block = InvertedResidual(6, channels, 3, stride, 6)
    torch.nn.init.zeros_(block.project.weight)
    torch.nn.init.zeros_(block.project.bias)
    features = torch.randn(1, 6, 8, 8)
    assert torch.equal(block(features), features if residual else torch.zeros(1, channels, 8 // stride, 8 // stride))


def test_a_ram_is_built_with_the_encoder_that_its_config_names() -> None:
    bert = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "layer_norm_eps": 1e-12,
        "encoder_width": 512,
    }
    sizes = {"stem": 8, "blocks": [dataclasses.asdict(block) for block in SMALL.blocks], "width": 16}
    config = RAMConfig.from_dict({"efficientnet": sizes, "bert": bert, "image_size": 32, "num_tags": 5})
    assert config.encoder == SMALL
    ram = RAM(config)
    assert isinstance(ram.visual_encoder, EfficientNet)
    tokens, logits = ram(torch.rand(1, 3, 100, 50))
    assert tokens.shape == (1, 1 + 8 * 8, 512)
    assert logits.shape == (1, 5)
