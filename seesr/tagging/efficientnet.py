"""EfficientNet-Lite (Tan and Le, ICML 2019), without squeeze-and-excitation and with ReLU6: the encoder of the embedded RAM.

The published RAM has a Swin pretrained on ImageNet; no such Swin is small enough to embed. BatchNorm is folded into the
convolutions, which therefore have biases.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class BlockConfig:
    """A sequence of equal blocks; only the first has the stride and changes the number of channels."""

    kernel: int
    stride: int
    expansion: int
    """Factor of the channels hidden_channels the two pointwise convolutions; with 1 there is only the second convolution."""
    channels: int
    repeats: int


class EfficientNet(nn.Module):
    """Images `(B, 3, H, W)` to tokens `(B, 1 + n, width)` in 0..6. The first token is the mean of the others, of which there
    is one for each square whose side in pixels is the product of all strides.

    Args:
        stem: channels of the first convolution, which has stride 2.
        blocks: the blocks after it.
        width: channels of the last convolution.
    """

    def __init__(self, stem: int, blocks: list[BlockConfig], width: int) -> None:
        super().__init__()
        self.stem = SameConv2d(3, stem, 3, stride=2)
        self.blocks, channels = nn.ModuleList(), stem
        for block in blocks:
            for index in range(block.repeats):
                stride = 1 if index else block.stride
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
    """Pointwise expansion, depthwise convolution and pointwise projection, with a residual where the shapes are equal
    (Sandler et al., CVPR 2018)."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden_channels = channels * expansion
        self.expand = nn.Conv2d(channels, hidden_channels, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(hidden_channels, hidden_channels, kernel, stride=stride, groups=hidden_channels)
        self.project = nn.Conv2d(hidden_channels, out_channels, 1)
        self.residual = stride == 1 and channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        hidden = features if self.expand is None else F.relu6(self.expand(features))
        output = self.project(F.relu6(self.depthwise(hidden)))
        return features + output if self.residual else output


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: an odd pixel of padding is added at the bottom and the right. A side
    becomes `side / stride`, rounded up."""

    def forward(self, input: Tensor) -> Tensor:
        padding: list[int] = []
        for side, kernel, stride in zip(reversed(input.shape[-2:]), self.kernel_size, self.stride, strict=True):
            total = max(0, (-(side // -stride) - 1) * stride + kernel - side)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding))
