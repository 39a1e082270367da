"""AutoencoderKL in independent tiles with statistics estimated from samples: for feature maps too large for exact tiles.

A few evenly spaced samples first run through the network together. From them, without their borders, every GroupNorm takes
its mean and variance, and attention its keys and values. Each tile then runs alone with these, with a halo as wide as the
radius of the receptive field: neighbouring tiles agree, however good the estimate is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from seesr.kernels.attention import chunked_attention, join_heads, split_heads
from seesr.tiling import tile_starts

SAMPLES_PER_SIDE = 3
"""Samples along each side of the picture."""
SAMPLE_INTERIOR = 16
"""Side in latent pixels of the part of a sample that counts."""
SAMPLE_HALO = 8
"""Width in latent pixels of the border around it that does not count. It is less than the receptive field, because distant
pixels hardly matter and all samples are in memory at once."""
BLEND_WIDTH = 4
"""Latent pixels over which neighbouring tiles are blended."""


class EstimatedTiledAutoencoder:
    """Encodes and decodes in independent tiles of `tile` latent pixels a side, with estimated statistics."""

    def __init__(self, vae: AutoencoderKL, tile: int) -> None:
        # A copy of the modules on the same parameters: their layers are replaced, and `vae` must stay as it is.
        shared = {id(tensor): tensor for tensor in [*vae.parameters(), *vae.buffers()]}
        self.vae, self.tile = copy.deepcopy(vae, shared), tile
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.halo = receptive_radius(vae)
        weight = vae.decoder.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.sampled_layers = [_use_sampled_layers(network) for network in (self.vae.encoder, self.vae.decoder)]

    def encode(self, pixels: Tensor) -> Tensor:
        """The posterior's mean `(1, C, H / f, W / f)`, unscaled, on the CPU, of pixels `(1, 3, H, W)` in -1..1."""
        return self._run(lambda x: self.vae.encode(x).latent_dist.mean, pixels, self.sampled_layers[0], self.factor, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `(1, 3, H, W)` in -1..1, on the CPU, of unscaled latents `(1, C, h, w)`."""
        return self._run(lambda x: self.vae.decode(x).sample, latents, self.sampled_layers[1], 1, self.factor)

    def _run(
        self,
        network: Callable[[Tensor], Tensor],
        x: Tensor,
        sampled_layers: list[SampledLayer],
        input_scale: int,
        output_scale: int,
    ) -> Tensor:
        """Runs `network` on `x`; the scales are pixels of input and output for each latent pixel along a side."""
        height, width = (side // input_scale for side in x.shape[2:])
        side = self.tile + 2 * self.halo
        size = min(side, height), min(side, width)

        def crop(top: int, left: int, size: tuple[int, int]) -> Tensor:
            rows = slice(top * input_scale, (top + size[0]) * input_scale)
            return x[:, :, rows, left * input_scale : (left + size[1]) * input_scale].to(self.device, self.dtype)

        sample = min(sample_side(self.tile), height), min(sample_side(self.tile), width)
        corners = [(top, left) for top in _sample_starts(height, sample[0]) for left in _sample_starts(width, sample[1])]
        for layer in sampled_layers:
            layer.start_sampling(SAMPLE_HALO / max(sample) if max(sample) > 2 * SAMPLE_HALO else 0.0)
        network(torch.cat([crop(*corner, sample) for corner in corners]))
        for layer in sampled_layers:
            layer.frozen = True

        total, weight = torch.empty(0), torch.empty(0)
        # Neighbouring tiles share their halos and the strip in which they are blended.
        overlap = 2 * self.halo + BLEND_WIDTH
        for top in tile_starts(height, size[0], overlap):
            for left in tile_starts(width, size[1], overlap):
                output = network(crop(top, left, size)).float().cpu()
                if not total.numel():
                    total = torch.zeros(1, output.shape[1], height * output_scale, width * output_scale)
                    weight = torch.zeros(1, 1, height * output_scale, width * output_scale)
                rows = slice(top * output_scale, (top + size[0]) * output_scale)
                columns = slice(left * output_scale, (left + size[1]) * output_scale)
                row_weights = _blend_weights(top, size[0], height, self.halo, output_scale)
                weights = row_weights[:, None] * _blend_weights(left, size[1], width, self.halo, output_scale)
                total[:, :, rows, columns] += output * weights
                weight[:, :, rows, columns] += weights
        return total.div_(weight)


class SampledLayer(nn.Module):
    """A layer that takes from the samples what it would need of the whole map, and keeps it once it is frozen."""

    border = 0.0
    """Share of each side to leave out at both ends, where the values depend on the sample's zero padding."""
    frozen = False

    def start_sampling(self, border: float) -> None:
        self.border, self.frozen = border, False

    def interior(self, x: Tensor) -> Tensor:
        """Samples `(S, C, h, w)` without their borders."""
        rows, columns = (math.floor(side * self.border) for side in x.shape[2:])
        return x[:, :, rows : x.shape[2] - rows, columns : x.shape[3] - columns]


class SampledGroupNorm(SampledLayer):
    """A GroupNorm with the mean and variance of all samples together."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        if not self.frozen:
            grouped = self.interior(x).float().transpose(0, 1).reshape(self.norm.num_groups, -1)
            repeat = x.shape[1] // self.norm.num_groups
            variance, mean = torch.var_mean(grouped, dim=1, correction=0)
            self.statistics = mean.repeat_interleave(repeat), variance.repeat_interleave(repeat)
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        return F.batch_norm(x, *self.statistics, weight, bias, eps=self.norm.eps)


class SampledAttention(SampledLayer):
    """Attention with the keys and values of the samples."""

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.Identity() if layer.group_norm is None else SampledGroupNorm(layer.group_norm)

    def start_sampling(self, border: float) -> None:
        super().start_sampling(border)
        if isinstance(self.norm, SampledLayer):
            self.norm.start_sampling(border)

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        if isinstance(self.norm, SampledLayer):
            self.norm.frozen = self.frozen
        layer, normed = self.layer, self.norm(x)
        if not self.frozen:
            tokens = self.interior(normed).flatten(2).permute(0, 2, 1).flatten(0, 1)[None]
            self.keys, self.values = (split_heads(layer, project(tokens)) for project in (layer.to_k, layer.to_v))
        queries = split_heads(layer, layer.to_q(normed.flatten(2).transpose(1, 2)))
        attended = torch.cat([chunked_attention(sample, self.keys, self.values) for sample in queries.split(1)])
        attended = join_heads(layer, attended).transpose(1, 2).view_as(x)
        return (attended + x if layer.residual_connection else attended) / layer.rescale_output_factor


def sample_side(tile: int) -> int:
    """Side in latent pixels of a sample, border included, for tiles of side `tile`."""
    return min(SAMPLE_INTERIOR, tile) + 2 * SAMPLE_HALO


def receptive_radius(vae: AutoencoderKL) -> int:
    """Radius of the receptive field of the convolutions in latent pixels; the larger one of encoder and decoder."""
    blocks, layers = len(vae.config.block_out_channels), vae.config.layers_per_block
    decoder, encoder = 6.0, 6.0
    for level in range(blocks):
        size = 2.0**-level
        decoder += 2 * (layers + 1) * size + (size / 2 if level < blocks - 1 else size)
        encoder += 2 * layers * size + size
    return math.ceil(max(decoder, encoder))


def _use_sampled_layers(network: nn.Module) -> list[SampledLayer]:
    """Replaces the layers of `network` that depend on the whole map by sampled layers, and returns these."""
    sampled_layers: list[SampledLayer] = []
    for module in list(network.modules()):
        if isinstance(module, Attention):
            continue  # what it holds belongs to its `SampledAttention`
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                sampled_layers.append(SampledGroupNorm(child))
            elif isinstance(child, Attention):
                sampled_layers.append(SampledAttention(child))
            else:
                continue
            setattr(module, name, sampled_layers[-1])
    return sampled_layers


def _sample_starts(length: int, size: int) -> list[int]:
    """Where the samples start along a side."""
    count = min(SAMPLES_PER_SIDE, math.ceil(length / size))
    return [round(index * (length - size) / max(1, count - 1)) for index in range(count)]


def _blend_weights(start: int, size: int, length: int, halo: int, output_scale: int) -> Tensor:
    """Weights along a side of a tile: about 0 in the halo, then rising to 1; 1 at the picture's border."""
    position = torch.arange(size * output_scale, dtype=torch.float32) / output_scale
    infinite = torch.full_like(position, math.inf)
    from_start = infinite if start == 0 else position - halo
    from_end = infinite if start + size == length else size - 1 / output_scale - position - halo
    return (torch.minimum(from_start, from_end) / BLEND_WIDTH).clamp(1e-6, 1)
