"""AutoencoderKL in independent tiles with statistics estimated from a sample: for maps too large to be kept whole.

Some tiles, spread evenly, go through the network together once; every GroupNorm takes its mean and variance from all of
them, and attention its keys and values, borders left out. Then each tile goes through alone with those, with as much
around it as the convolutions can see: neighbours agree, whatever the estimate is worth.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from seesr.kernels.attention import attend, join_heads, split_heads
from seesr.tiling import tile_starts

SAMPLES = 3
"""Parts to a side that the statistics are taken from."""
SAMPLE = 16
"""Their side in latent pixels, without what is left out around them."""
SAMPLE_HALO = 8
"""What is left out: less than the convolutions can see, for what lies further off hardly counts, and all samples are in
memory at once."""
BLEND = 4
"""Latent pixels over which neighbours are blended."""


class EstimatedAutoencoder:
    """Encodes and decodes in independent tiles of `tile` latent pixels a side."""

    def __init__(self, vae: AutoencoderKL, tile: int) -> None:
        # A second structure on the same parameters, so that the given one stays as it is.
        shared = {id(tensor): tensor for tensor in [*vae.parameters(), *vae.buffers()]}
        self.vae, self.tile = copy.deepcopy(vae, shared), tile
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.halo = receptive_field(vae)
        weight = vae.decoder.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.sampled = [_replace(part) for part in (self.vae.encoder, self.vae.decoder)]

    def encode(self, pixels: Tensor) -> Tensor:
        """The posterior's mean `(1, C, H / f, W / f)`, unscaled, of `(1, 3, H, W)` in -1..1; on the host."""
        return self._run(lambda x: self.vae.encode(x).latent_dist.mean, pixels, self.sampled[0], source=self.factor, made=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `(1, 3, H, W)` in -1..1 of unscaled latents `(1, C, h, w)`; on the host."""
        return self._run(lambda x: self.vae.decode(x).sample, latents, self.sampled[1], source=1, made=self.factor)

    def _run(self, network: nn.Module, x: Tensor, sampled: list[Sampled], source: int, made: int) -> Tensor:
        """`x` has `source` pixels for each latent one, the result `made`."""
        height, width = (side // source for side in x.shape[2:])
        side = self.tile + 2 * self.halo
        size = min(side, height), min(side, width)

        def part(top: int, left: int, size: tuple[int, int]) -> Tensor:
            rows = slice(top * source, (top + size[0]) * source)
            return x[:, :, rows, left * source : (left + size[1]) * source].to(self.device, self.dtype)

        sample = tuple(min(sample_side(self.tile), side) for side in (height, width))
        corners = [(top, left) for top in _spread(height, sample[0]) for left in _spread(width, sample[1])]
        for layer in sampled:
            layer.begin(SAMPLE_HALO / max(sample) if max(sample) > 2 * SAMPLE_HALO else 0.0)
        network(torch.cat([part(*corner, sample) for corner in corners]))
        for layer in sampled:
            layer.frozen = True

        total, weight = None, None
        # Tiles share their halos and the stretch in which they are blended.
        overlap = 2 * self.halo + BLEND
        for top in tile_starts(height, size[0], overlap):
            for left in tile_starts(width, size[1], overlap):
                found = network(part(top, left, size)).float().cpu()
                if total is None:
                    total = torch.zeros(1, found.shape[1], height * made, width * made)
                    weight = torch.zeros(1, 1, height * made, width * made)
                rows = slice(top * made, (top + size[0]) * made)
                columns = slice(left * made, (left + size[1]) * made)
                share = _ramp(top, size[0], height, self.halo, made)[:, None] * _ramp(left, size[1], width, self.halo, made)
                total[:, :, rows, columns] += found * share
                weight[:, :, rows, columns] += share
        return total.div_(weight)


class Sampled(nn.Module):
    """A layer that first learns from the samples what it needs of the whole map, and then keeps to it."""

    border = 0.0
    """Share of a side to leave out at each end: what lies there has seen the sample's edge."""
    frozen = False

    def begin(self, border: float) -> None:
        self.border, self.frozen = border, False

    def inner(self, x: Tensor) -> Tensor:
        """Samples `(S, C, h, w)` without their borders."""
        rows, columns = (math.floor(side * self.border) for side in x.shape[2:])
        return x[:, :, rows : x.shape[2] - rows, columns : x.shape[3] - columns]


class SampledNorm(Sampled):
    """A GroupNorm with mean and variance of all samples together."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        if not self.frozen:
            grouped = self.inner(x).float().transpose(0, 1).reshape(self.norm.num_groups, -1)
            repeat = x.shape[1] // self.norm.num_groups
            variance, mean = torch.var_mean(grouped, dim=1, correction=0)
            self.statistics = mean.repeat_interleave(repeat), variance.repeat_interleave(repeat)
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        return F.batch_norm(x, *self.statistics, weight, bias, eps=self.norm.eps)


class SampledAttention(Sampled):
    """Attention whose keys and values are those of the samples."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.Identity() if layer.group_norm is None else SampledNorm(layer.group_norm)

    def begin(self, border: float) -> None:
        super().begin(border)
        if isinstance(self.norm, Sampled):
            self.norm.begin(border)

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        if isinstance(self.norm, Sampled):
            self.norm.frozen = self.frozen
        layer, normed = self.layer, self.norm(x)
        if not self.frozen:
            known = self.inner(normed).flatten(2).permute(0, 2, 1).flatten(0, 1)[None]
            self.keys, self.values = (split_heads(layer, project(known)) for project in (layer.to_k, layer.to_v))
        queries = split_heads(layer, layer.to_q(normed.flatten(2).transpose(1, 2)))
        found = torch.cat([attend(part, self.keys, self.values) for part in queries.split(1)])
        found = join_heads(layer, found).transpose(1, 2).view_as(x)
        return (found + x if layer.residual_connection else found) / layer.rescale_output_factor


def sample_side(tile: int) -> int:
    """Side in latent pixels of one of the `SAMPLES`**2 samples, border included, for tiles of this side."""
    return min(SAMPLE, tile) + 2 * SAMPLE_HALO


def receptive_field(vae: AutoencoderKL) -> int:
    """How many latent pixels away a result can still depend on its input, through convolutions; the larger of both ways."""
    blocks, layers = len(vae.config.block_out_channels), vae.config.layers_per_block
    decode, encode = 6.0, 6.0
    for level in range(blocks):
        size = 2.0**-level
        decode += 2 * (layers + 1) * size + (size / 2 if level < blocks - 1 else size)
        encode += 2 * layers * size + size
    return math.ceil(max(decode, encode))


def _replace(part: nn.Module) -> list[Sampled]:
    """Puts sampled layers in place of those that look at the whole map, and returns them."""
    made: list[Sampled] = []
    for module in list(part.modules()):
        for name, child in list(module.named_children()):
            kind = (
                SampledNorm
                if isinstance(child, nn.GroupNorm)
                else SampledAttention
                if isinstance(child, Attention)
                else None
            )
            if kind is not None and not isinstance(module, Attention):
                made.append(kind(child))
                setattr(module, name, made[-1])
    return made


def _spread(length: int, size: int) -> list[int]:
    """Where the samples begin along a side."""
    count = min(SAMPLES, math.ceil(length / size))
    return [round(number * (length - size) / max(1, count - 1)) for number in range(count)]


def _ramp(start: int, size: int, length: int, halo: int, made: int) -> Tensor:
    """Weights along a side of a tile: 0 where a neighbour knows better, then rising to 1; 1 at the picture's own border."""
    place = torch.arange(size * made, dtype=torch.float32) / made
    far = torch.full_like(place, math.inf)
    from_start = far if start == 0 else place - halo
    from_end = far if start + size == length else size - 1 / made - place - halo
    return (torch.minimum(from_start, from_end) / BLEND).clamp(1e-6, 1)
