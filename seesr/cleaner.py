"""The cleaner: a network that removes blur and noise from a photograph before it is enlarged.

Only the embedded model has one. Similar stages are the pre-cleaning of RealBasicVSR (Chan et al., CVPR 2022) and the first
stage of DiffBIR (Lin et al., ECCV 2024).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seesr.errors import WeightsError
from seesr.images.colour import wavelet_fix
from seesr.weights.state_dict import load_network

TILE = 512
"""Longest side of a tile in pixels."""
EDGE_PADDING = 8
"""Pixels by which the picture's edge is replicated, so that the zero padding of convolutions is not next to the picture."""

INPUT_SCALE, OUTPUT_SCALE = 4.0, 0.1
"""Factors of the network's input and output, so that both have a deviation of about 1, which training needs."""


class ResidualBlock(nn.Module):
    """Two convolutions with a residual connection; maps are `(B, channels, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv2(F.silu(self.conv1(maps)))


class Cleaner(nn.Module):
    """A U-Net without normalisation that predicts the correction of a picture, at the picture's size.

    Args:
        channels: width of each level; the maps of each further level are half as large.
        layers: blocks of each level in the encoder, and again in the decoder.
    """

    def __init__(self, channels: list[int], layers: int) -> None:
        super().__init__()

        def blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width) for _ in range(layers)))

        transitions = list(zip(channels[:-1], channels[1:], strict=True))
        self.multiple_of = 2 ** len(transitions)
        # Each block adds two pixels of its level to the radius; the last level is passed once, the others twice.
        passes = 2 * sum(2**level for level in range(len(transitions))) + self.multiple_of
        self.receptive_radius = 2 + 2 * layers * passes + self.multiple_of
        self.first = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(width) for width in channels)
        self.reduce = nn.ModuleList(nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in transitions)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 2, stride=2) for wide, deep in transitions)
        self.up = nn.ModuleList(blocks(width) for width in channels[:-1])
        self.last = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Cleaned RGB, float32, of RGB `(B, 3, H, W)` in 0..1 with sides that are multiples of `multiple_of`.

        A pixel of the result depends on no pixel further away than `receptive_radius`.
        """
        centred = ((image - 0.5) * INPUT_SCALE).to(self.first.weight.dtype)
        maps, skips = self.first(centred), []
        for level, blocks in enumerate(self.down):
            maps = blocks(maps)
            if level < len(self.reduce):
                skips.append(maps)
                maps = self.reduce[level](maps)
        for level in reversed(range(len(self.up))):
            maps = self.up[level](self.enlarge[level](maps) + skips[level])
        return image + self.last(maps).float() * OUTPUT_SCALE


def clean(cleaner: Cleaner, image: Tensor, most: int = TILE) -> Tensor:
    """Cleaned RGB, float32 and not clamped, of RGB `(B, 3, H, W)` in 0..1 of any size, on the CPU; colours stay the same.

    It runs in tiles of at most about `most` pixels a side, with the same result as the whole picture up to rounding.
    """
    height, width = image.shape[2:]
    right, bottom = (EDGE_PADDING + -(side + 2 * EDGE_PADDING) % cleaner.multiple_of for side in (width, height))
    padded, device = F.pad(image, (EDGE_PADDING, right, EDGE_PADDING, bottom), mode="replicate"), cleaner.first.weight.device
    halo, result = _round_up(cleaner.receptive_radius, cleaner.multiple_of), torch.empty_like(padded)
    tile_height, tile_width = (_tile_side(side, most, cleaner.multiple_of) for side in padded.shape[2:])
    for top in range(0, padded.shape[2], tile_height):
        for left in range(0, padded.shape[3], tile_width):
            above, before = min(halo, top), min(halo, left)
            tile = padded[..., top - above : top + tile_height + halo, left - before : left + tile_width + halo]
            cleaned = cleaner(tile.to(device))[..., above : above + tile_height, before : before + tile_width]
            result[..., top : top + tile_height, left : left + tile_width] = cleaned
    return wavelet_fix(result[..., EDGE_PADDING : EDGE_PADDING + height, EDGE_PADDING : EDGE_PADDING + width], image)


def _tile_side(length: int, most: int, multiple_of: int) -> int:
    """Side of tiles that are about equally large and as few as `most` allows."""
    return _round_up(math.ceil(length / math.ceil(length / most)), multiple_of)


def _round_up(number: int, multiple_of: int) -> int:
    return math.ceil(number / multiple_of) * multiple_of


def load_cleaner(folder: Path, dtype: torch.dtype = torch.float32) -> Cleaner:
    """Reads the cleaner from a folder with `config.json` (`channels` and `layers`) and a weight file.

    Raises:
        WeightsError: a file is missing, the config is wrong, or the tensors do not fit it.
    """

    def build(config: dict[str, Any]) -> Cleaner:
        channels, layers = config.get("channels"), config.get("layers")
        if not isinstance(channels, list) or not channels or not all(map(_is_count, channels)) or not _is_count(layers):
            path = folder / "config.json"
            raise WeightsError(
                f"{path} must hold `channels`, a list of whole numbers, and `layers`, a whole number; all above 0."
            )
        with torch.device("meta"):
            return Cleaner(channels, layers)

    return load_network(folder, build, dtype)


def _is_count(number: object) -> TypeGuard[int]:
    return isinstance(number, int) and number > 0
