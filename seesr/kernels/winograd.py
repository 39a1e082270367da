"""3x3 convolutions by Winograd's method: F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
(CVPR 2016), with their names `B`, `G` and `A`. It takes a quarter of the multiplications, as 36 matrix products.

Only for float32 on a CPU, where PyTorch computes every product; GPU libraries use the method themselves. The largest error
against float64 is 5e-5 (PyTorch's is 1e-5) for maps with a standard deviation of 0.6. Measured on two cores with AVX512:
0.45 to 0.69 of PyTorch's time for a layer, 16.9 instead of 27.0 s for a picture of the full model (docs/speed.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OUTPUT_TILE, INPUT_TILE = 4, 6
"""Side in pixels of an output tile, and of the input that it is computed from."""
B = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
"""Input transform along one side, transposed, as it is used in the product."""
A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
"""Output transform along one side, transposed too."""
G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
"""Weight transform along one side, times 24, so that it has whole numbers."""
TILES_PER_PRODUCT = 128
"""Tiles in one matrix product; their transforms then fit into the processor's caches."""
MIN_CHANNELS, MIN_PIXELS = 128, 1024
"""Sizes from which it is faster than PyTorch, although input and weights are transformed in every call."""


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that keeps the size of the map, computed by `conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return conv2d(input, self.weight, self.bias, int(self.padding[0]))


def use_winograd(network: nn.Module) -> None:
    """Turns every supported convolution of `network` into a `WinogradConv2d`, with the same parameters."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_supported(module):
            module.__class__ = WinogradConv2d


def _is_supported(conv: nn.Conv2d) -> bool:
    dense = conv.groups == 1 and conv.padding_mode == "zeros"
    return dense and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """`torch.nn.functional.conv2d` with stride 1 of maps `(B, C, h, w)`; uses `winograd` where that is faster."""
    supported = x.device.type == "cpu" and x.dtype == torch.float32 and weight.shape[2:] == (3, 3)
    large = min(weight.shape[:2]) >= MIN_CHANNELS and x.shape[2] * x.shape[3] >= MIN_PIXELS
    return (winograd if supported and large else F.conv2d)(x, weight, bias, padding=padding)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """Convolution with stride 1 of maps `(B, C, h, w)` with weights `(O, C, 3, 3)`: `(B, O, h', w')`, channels last."""
    input_transform, weight_transform, output_transform = (_both_sides(matrix, x) for matrix in (B, G, A))
    outputs, inputs = weight.shape[:2]
    transformed = weight_transform / 24**2 @ weight.permute(2, 3, 0, 1).reshape(9, -1)
    transformed = transformed.view(INPUT_TILE**2, outputs, inputs).transpose(1, 2)
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    tile_rows, tile_columns = -(-height // OUTPUT_TILE), -(-width // OUTPUT_TILE)
    output = x.new_empty(x.shape[0], tile_rows, OUTPUT_TILE, tile_columns, OUTPUT_TILE, outputs)
    for index, pixels in enumerate(x.permute(0, 2, 3, 1)):
        for rows, columns in _tile_blocks(tile_rows, tile_columns):
            block = _block_input(pixels, rows, columns, padding)
            windows = block.unfold(0, INPUT_TILE, OUTPUT_TILE).unfold(1, INPUT_TILE, OUTPUT_TILE)
            tiles = windows.permute(3, 4, 0, 1, 2).reshape(INPUT_TILE**2, -1)
            products = (input_transform @ tiles).view(INPUT_TILE**2, -1, inputs) @ transformed
            result = output_transform @ products.view(INPUT_TILE**2, -1)
            result = result.view(OUTPUT_TILE, OUTPUT_TILE, *windows.shape[:2], outputs)
            if bias is not None:
                result += bias
            output[index, rows, :, columns] = result.permute(2, 0, 3, 1, 4)
    output = output.view(-1, tile_rows * OUTPUT_TILE, tile_columns * OUTPUT_TILE, outputs)
    return output[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _both_sides(matrix: tuple[tuple[int, ...], ...], x: Tensor) -> Tensor:
    """`matrix`, which transforms one side, as one matrix for both sides of a tile, whose pixels are in row-major order."""
    one_side = x.new_tensor(matrix)
    return torch.kron(one_side, one_side)


def _tile_blocks(tile_rows: int, tile_columns: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of tiles in blocks of at most `TILES_PER_PRODUCT` tiles, all about equally large."""
    width = -(-tile_columns // -(-tile_columns // TILES_PER_PRODUCT))
    height = TILES_PER_PRODUCT // width
    for top in range(0, tile_rows, height):
        for left in range(0, tile_columns, width):
            yield slice(top, min(top + height, tile_rows)), slice(left, min(left + width, tile_columns))


def _block_input(pixels: Tensor, rows: slice, columns: slice, padding: int) -> Tensor:
    """The input of a block of tiles, from `pixels` `(h, w, C)`, with zeros outside the map."""
    top, left = (tiles.start * OUTPUT_TILE - padding for tiles in (rows, columns))
    bottom, right = (tiles.stop * OUTPUT_TILE - padding + INPUT_TILE - OUTPUT_TILE for tiles in (rows, columns))
    height, width = pixels.shape[:2]
    outside = max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0)
    inside = pixels[max(top, 0) : bottom, max(left, 0) : right]
    return F.pad(inside, (0, 0, *outside)) if any(outside) else inside
