"""Swin Transformer (Liu et al., ICCV 2021) as RAM uses it, with the published parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASK_VALUE = -100.0
"""Added to attention scores between regions that only the cyclic shift made adjacent, as in the published model."""


class SwinTransformer(nn.Module):
    """Square images `(B, 3, image_size, image_size)` to tokens `(B, 1 + n, width)`; the first is the mean of the others.

    Args:
        image_size: side of the input in pixels; each stage's side must be smaller than the window or a multiple of it.
        embed_dim: width of the first stage; each further stage is twice as wide.
        depths: number of blocks of each stage.
        num_heads: number of attention heads of each stage.
        window_size: side of the attention windows in tokens of the stage (4x4 pixels in the first).

    Raises:
        ValueError: a stage cannot be split into whole windows.
    """

    def __init__(self, image_size: int, embed_dim: int, depths: list[int], num_heads: list[int], window_size: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(embed_dim)
        side, self.layers = image_size // 4, nn.ModuleList()
        for index, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            last = index == len(depths) - 1
            self.layers.append(SwinStage(embed_dim * 2**index, side, depth, heads, window_size, merge=not last))
            side = side if last else side // 2
        self.norm = nn.LayerNorm(embed_dim * 2 ** (len(depths) - 1))

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patch_embed(image)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens.flatten(1, 2))
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


class PatchEmbed(nn.Module):
    """Pixels `(B, 3, H, W)` to tokens of 4x4 patches `(B, H / 4, W / 4, dim)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class SwinStage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows, then, where asked for, a merge of 2x2 patches."""

    def __init__(self, dim: int, side: int, depth: int, heads: int, window: int, merge: bool) -> None:
        super().__init__()
        if side > window and side % window:
            raise ValueError(f"a stage of {side}x{side} patches cannot be split into windows of {window}x{window}")
        shifts = [0 if index % 2 == 0 or side <= window else window // 2 for index in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(dim, side, heads, min(window, side), shift) for shift in shifts)
        self.downsample = PatchMerging(dim) if merge else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.downsample(tokens)


class PatchMerging(nn.Module):
    """`(B, H, W, dim)` to `(B, H / 2, W / 2, 2 * dim)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        corners = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each with a residual connection."""

    mask: Tensor

    def __init__(self, dim: int, side: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.register_buffer("mask", shift_mask(side, window, shift), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        shifted = torch.roll(self.norm1(tokens), (-self.shift, -self.shift), dims=(1, 2))
        attended = self.attn(to_windows(shifted, self.window), self.mask)
        shifted = from_windows(attended, self.window, tokens.shape)
        tokens = tokens + torch.roll(shifted, (self.shift, self.shift), dims=(1, 2))
        return tokens + self.mlp(self.norm2(tokens))


class WindowAttention(nn.Module):
    """Multi-head attention within windows `(B, windows, window**2, dim)` with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor) -> Tensor:
        batch, count, length, dim = windows.shape
        qkv = self.qkv(windows).reshape(batch * count, length, 3, self.heads, dim // self.heads)
        # In four dimensions, because PyTorch has no fused kernel for five.
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        bias = bias + mask[:, None].to(bias)
        if len(mask) > 1:
            bias = bias.repeat(batch, 1, 1, 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, length, dim))


class Mlp(nn.Module):
    """Two linear layers with a hidden width of four times `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


def to_windows(tokens: Tensor, window: int) -> Tensor:
    """`(B, H, W, C)` to `(B, windows, window**2, C)`."""
    batch, height, width, channels = tokens.shape
    grid = tokens.reshape(batch, height // window, window, width // window, window, channels)
    return grid.transpose(2, 3).reshape(batch, -1, window**2, channels)


def from_windows(windows: Tensor, window: int, shape: torch.Size) -> Tensor:
    """The inverse of `to_windows` for tokens of `shape`."""
    batch, height, width, channels = shape
    grid = windows.reshape(batch, height // window, width // window, window, window, channels)
    return grid.transpose(2, 3).reshape(shape)


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of positions in a window: `(window**2, window**2)`."""
    row, column = torch.meshgrid(*[torch.arange(window, device="cpu")] * 2, indexing="ij")
    rows = row.flatten()[:, None] - row.flatten() + window - 1
    columns = column.flatten()[:, None] - column.flatten() + window - 1
    return rows * (2 * window - 1) + columns


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Attention mask of each window: 0, or `MASK_VALUE` between regions that were not adjacent before the shift.

    `(windows, window**2, window**2)`; without a shift one window of zeros, which broadcasts.
    """
    if shift == 0:
        return torch.zeros(1, window**2, window**2, device="cpu")
    position = torch.arange(side, device="cpu")
    region = (position >= side - window).long() + (position >= side - shift).long()
    regions = to_windows((3 * region[:, None] + region)[None, :, :, None], window)[0, :, :, 0]
    return (regions[:, :, None] != regions[:, None, :]) * MASK_VALUE
