"""EfficientNet (Tan and Le, ICML 2019) in its Lite form, without squeeze-and-excitation and with ReLU6, for a small RAM.

RAM's published encoders are Swins that began with ImageNet's knowledge; there is no such Swin small enough to be embedded.
Normalisation is folded into the convolutions: what is left are convolutions with biases.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class BlockConfig:
    """Blocks that follow one another: the first has the stride and changes the channels, the others keep both."""

    kernel: int
    stride: int
    expansion: int
    """How many times as wide a block is between its two pointwise convolutions; at 1 it has only the second."""
    channels: int
    repeats: int


class EfficientNet(nn.Module):
    """Images `(B, 3, H, W)` to tokens `(B, 1 + n, width)`, the first being the mean of the rest: a token for each square of
    as many pixels a side as the strides' product. They are from 0 to 6.

    Args:
        stem: channels of the first convolution, of stride 2.
        blocks: what follows it.
        width: channels of the last convolution.
    """

    def __init__(self, stem: int, blocks: list[BlockConfig], width: int) -> None:
        super().__init__()
        self.stem = SameConv2d(3, stem, 3, stride=2)
        self.blocks, channels = nn.ModuleList(), stem
        for block in blocks:
            for number in range(block.repeats):
                stride = 1 if number else block.stride
                self.blocks.append(InvertedResidual(channels, block.channels, block.kernel, stride, block.expansion))
                channels = block.channels
        self.head = nn.Conv2d(channels, width, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = F.relu6(self.stem(image))
        for block in self.blocks:
            features = block(features)
        tokens = F.relu6(self.head(features)).flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


class InvertedResidual(nn.Module):
    """A pointwise convolution to more channels, one of each channel by itself, a pointwise one to fewer; a residual where
    it fits (Sandler et al., CVPR 2018)."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        between = channels * expansion
        self.expand = nn.Conv2d(channels, between, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(between, between, kernel, stride=stride, groups=between)
        self.project = nn.Conv2d(between, out_channels, 1)
        self.residual = stride == 1 and channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        made = features if self.expand is None else F.relu6(self.expand(features))
        made = self.project(F.relu6(self.depthwise(made)))
        return features + made if self.residual else made


class SameConv2d(nn.Conv2d):
    """A convolution with zeros at the borders as TensorFlow lays them: where they cannot be even, one more below and on the
    right. A map of `side` becomes `side / stride`, rounded up."""

    def forward(self, features: Tensor) -> Tensor:
        borders: list[int] = []
        for side, kernel, stride in zip(reversed(features.shape[-2:]), self.kernel_size, self.stride, strict=True):
            missing = max(0, (-(side // -stride) - 1) * stride + kernel - side)
            borders += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(features, borders))
