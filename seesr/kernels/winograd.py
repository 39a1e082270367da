"""Convolutions of 3x3 by Winograd's method: F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks" (CVPR 2016), whose names (`B`, `G`, `A`) are kept. A quarter of the multiplications, as 36 products of matrices.

For float32 on a CPU, where PyTorch does them all; GPUs' libraries know the method. The farthest of a map's numbers is 5e-5
from float64's, PyTorch's 1e-5, where they deviate by 0.6.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OUTPUT_TILE, INPUT_TILE = 4, 6
"""Sides of a tile: of what comes of it, and of what it needs."""
B = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
"""Transposed, as it stands in the products: what is multiplied, of a tile's pixels along one side."""
A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
"""Transposed too: what comes of it, of the products along one side."""
G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
"""24 times what it is multiplied with, of the weights along one side."""
TILES_AT_ONCE = 128
"""In one product; what they become then stays in the processor's caches."""
FEWEST_CHANNELS, FEWEST_PIXELS = 128, 1024
"""Where it is faster than PyTorch's: pixels and weights are to be transformed each time."""


class WinogradConv2d(nn.Conv2d):
    """A convolution of 3x3 that keeps a map's size, by `conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.padding[0])


def use_winograd(network: nn.Module) -> None:
    """Turns every convolution of `network` that can be one into a `WinogradConv2d`."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _keeps_size(module):
            module.__class__ = WinogradConv2d


def _keeps_size(conv: nn.Conv2d) -> bool:
    dense = conv.groups == 1 and conv.padding_mode == "zeros"
    return dense and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """As `torch.nn.functional.conv2d`, stride 1, of a map `(B, C, h, w)`; by `winograd` where that is faster."""
    as_winograd = x.device.type == "cpu" and x.dtype == torch.float32 and weight.shape[2:] == (3, 3)
    large = min(weight.shape[:2]) >= FEWEST_CHANNELS and x.shape[2] * x.shape[3] >= FEWEST_PIXELS
    return (winograd if as_winograd and large else F.conv2d)(x, weight, bias, padding=padding)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """The convolution, stride 1, of maps `(B, C, h, w)` with weights `(O, C, 3, 3)`: `(B, O, h', w')`, channels last."""
    from_pixels, from_weights, to_pixels = (_both_ways(matrix, x) for matrix in (B, G, A))
    outputs, inputs = weight.shape[:2]
    factors = from_weights / 24**2 @ weight.permute(2, 3, 0, 1).reshape(9, -1)
    factors = factors.view(INPUT_TILE**2, outputs, inputs).transpose(1, 2)
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    down, across = -(-height // OUTPUT_TILE), -(-width // OUTPUT_TILE)
    made = x.new_empty(x.shape[0], down, OUTPUT_TILE, across, OUTPUT_TILE, outputs)
    for number, picture in enumerate(x.permute(0, 2, 3, 1)):
        for rows, columns in _blocks(down, across):
            pixels = _pixels(picture, rows, columns, padding)
            seen = pixels.unfold(0, INPUT_TILE, OUTPUT_TILE).unfold(1, INPUT_TILE, OUTPUT_TILE)
            tiles = seen.permute(3, 4, 0, 1, 2).reshape(INPUT_TILE**2, -1)
            products = (from_pixels @ tiles).view(INPUT_TILE**2, -1, inputs) @ factors
            found = (to_pixels @ products.view(INPUT_TILE**2, -1)).view(OUTPUT_TILE, OUTPUT_TILE, *seen.shape[:2], outputs)
            if bias is not None:
                found += bias
            made[number, rows, :, columns] = found.permute(2, 0, 3, 1, 4)
    made = made.view(-1, down * OUTPUT_TILE, across * OUTPUT_TILE, outputs)[:, :height, :width].permute(0, 3, 1, 2)
    return made.contiguous(memory_format=torch.channels_last)


def _both_ways(matrix: tuple[tuple[int, ...], ...], x: Tensor) -> Tensor:
    """What `matrix` does along a side, as one matrix for both sides of a tile, whose pixels stand row by row."""
    along = x.new_tensor(matrix)
    return torch.kron(along, along)


def _blocks(down: int, across: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of tiles, `TILES_AT_ONCE` or less, and about as many in each."""
    width = -(-across // -(-across // TILES_AT_ONCE))
    height = TILES_AT_ONCE // width
    for top in range(0, down, height):
        for left in range(0, across, width):
            yield slice(top, min(top + height, down)), slice(left, min(left + width, across))


def _pixels(picture: Tensor, rows: slice, columns: slice, padding: int) -> Tensor:
    """What these tiles need of `picture` `(h, w, C)`, with zeros where there is nothing."""
    top, left = (tiles.start * OUTPUT_TILE - padding for tiles in (rows, columns))
    bottom, right = (tiles.stop * OUTPUT_TILE - padding + INPUT_TILE - OUTPUT_TILE for tiles in (rows, columns))
    height, width = picture.shape[:2]
    sides = max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0)
    inside = picture[max(top, 0) : bottom, max(left, 0) : right]
    return F.pad(inside, (0, 0, *sides)) if any(sides) else inside
