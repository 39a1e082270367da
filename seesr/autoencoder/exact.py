"""AutoencoderKL in tiles with the result of the whole: every layer runs over all tiles before the next one begins.

A convolution needs a pixel or so around its tile, which is there, because the map before it is whole; normalisation
needs the mean and variance of the whole map, which were counted while it was written; the mid-block's attention looks
at all keys. So nothing is estimated, the overlap is one pixel instead of the receptive field, and the device holds one
tile. What lies whole, in memory or in files, is a layer's input and output, and of the input only what is still needed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from seesr.autoencoder.feature_maps import Box, FeatureMap, MapMemory
from seesr.kernels.attention import attend, join_heads, split_heads
from seesr.kernels.winograd import conv2d

Norm = Callable[[Tensor], Tensor]


class TiledAutoencoder:
    """Encodes and decodes in tiles.

    Args:
        vae: any AutoencoderKL with GroupNorm; where it lies is where the tiles are worked on.
        tile: side of a tile in latent pixels.
        memory: where whole maps lie.
    """

    def __init__(self, vae: AutoencoderKL, tile: int, memory: MapMemory | None = None) -> None:
        self.vae, self.tile = vae, tile
        self.memory = memory or MapMemory()
        weight = vae.decoder.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """The posterior's mean `(B, C, H / f, W / f)`, unscaled, of `(B, 3, H, W)` in -1..1; where maps lie."""
        return _together([self._encode(picture) for picture in pixels.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `(B, 3, H, W)` in -1..1 of unscaled latents `(B, C, h, w)`; where maps lie."""
        return _together([self._decode(picture) for picture in latents.split(1)])

    def _encode(self, pixels: Tensor) -> Tensor:
        encoder, quant = self.vae.encoder, self.vae.quant_conv
        x = FeatureMap.of(self.memory, pixels, self.tile * self.factor, self.dtype)
        x = self._convolve(x, encoder.conv_in)
        for block in encoder.down_blocks:
            x = self._block(x, block)
            for layer in block.downsamplers or []:
                x = self._downsample(x, layer)
        x = self._mid(x, encoder.mid_block)
        before = self._norm(x, encoder.conv_norm_out, encoder.conv_act)
        return self._convolve(x, encoder.conv_out, before, after=quant).whole().chunk(2, dim=1)[0]

    def _decode(self, latents: Tensor) -> Tensor:
        decoder, quant = self.vae.decoder, self.vae.post_quant_conv
        x = FeatureMap.of(self.memory, latents, self.tile, self.dtype)
        x = self._convolve(x, decoder.conv_in, before=quant)
        x = self._mid(x, decoder.mid_block)
        for block in decoder.up_blocks:
            x = self._block(x, block)
            for layer in block.upsamplers or []:
                x = self._upsample(x, layer)
        return self._convolve(x, decoder.conv_out, before=self._norm(x, decoder.conv_norm_out, decoder.conv_act)).whole()

    def _mid(self, x: FeatureMap, block: nn.Module) -> FeatureMap:
        x = self._resnet(x, block.resnets[0])
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            x = self._resnet(x if attention is None else self._attend(x, attention), resnet)
        return x

    def _block(self, x: FeatureMap, block: nn.Module) -> FeatureMap:
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions, strict=True):
            x = self._resnet(x, resnet)
            x = x if attention is None else self._attend(x, attention)
        return x

    def _resnet(self, x: FeatureMap, block: nn.Module) -> FeatureMap:
        """Two passes: the first makes the hidden map and, where widths differ, the shortcut, giving up `x` as it goes; the
        second adds to the shortcut in place."""
        hidden = self._like(x, block.conv1.out_channels)
        shortcut = x if block.conv_shortcut is None else self._like(x, block.conv1.out_channels)
        norm = self._norm(x, block.norm1, block.nonlinearity)
        for box in x.tiles(x.band):
            hidden.write(box, self._conv(x, box, block.conv1, norm))
            if shortcut is not x:
                shortcut.write(box, block.conv_shortcut(self._read(x, box)))
                self._release(x, box)
        norm = self._norm(hidden, block.norm2, block.nonlinearity)
        shortcut.forget_statistics()
        for box in hidden.tiles(hidden.band):
            change = self._conv(hidden, box, block.conv2, norm)
            shortcut.write(box, change.add_(self._read(shortcut, box)).div_(block.output_scale_factor))
            self._release(hidden, box)
        return shortcut

    def _convolve(
        self, x: FeatureMap, conv: nn.Conv2d, before: Norm | None = None, after: nn.Conv2d | None = None
    ) -> FeatureMap:
        made = self._like(x, (after or conv).out_channels)
        for box in x.tiles(x.band):
            values = self._conv(x, box, conv, before)
            made.write(box, values if after is None else after(values))
            self._release(x, box)
        return made

    def _upsample(self, x: FeatureMap, layer: nn.Module) -> FeatureMap:
        made = FeatureMap(self.memory, layer.conv.out_channels, 2 * x.height, 2 * x.width, 2 * x.band, self.dtype)
        for box in x.tiles(x.band):
            near = box.around(1)
            values = F.interpolate(self._read(x, near), scale_factor=2.0, mode="nearest")
            # Of each neighbour that is there, the nearer one of its two copies is needed, of a missing one a zero.
            left, right, top, bottom = (1 - 2 * is_missing for is_missing in (min(n, 1) for n in x.outside(near)))
            values = F.pad(values, (-left, -right, -top, -bottom))
            target = Box(2 * box.top, 2 * box.bottom, 2 * box.left, 2 * box.right)
            made.write(target, conv2d(values, layer.conv.weight, layer.conv.bias))
            self._release(x, box)
        return made

    def _downsample(self, x: FeatureMap, layer: nn.Module) -> FeatureMap:
        """A convolution with stride 2; without padding of its own it sees a row and column of zeros at the far end."""
        before = layer.conv.padding[0]
        height, width = ((side + (2 if before else 1) - 3) // 2 + 1 for side in (x.height, x.width))
        made = FeatureMap(self.memory, layer.conv.out_channels, height, width, x.band // 2, self.dtype)
        for target in made.tiles(made.band):
            source = Box(
                2 * target.top - before,
                2 * target.bottom + 1 - before,
                2 * target.left - before,
                2 * target.right + 1 - before,
            )
            values = _pad(self._read(x, source), x.outside(source))
            made.write(target, F.conv2d(values, layer.conv.weight, layer.conv.bias, stride=2))
            if target.right == made.width:
                x.release_above(source.bottom - 1)
        return made

    def _attend(self, x: FeatureMap, layer: nn.Module) -> FeatureMap:
        """Every pixel asks all pixels; keys and values of all lie on the device, queries come by tile."""
        norm = (lambda tensor: tensor) if layer.group_norm is None else self._norm(x, layer.group_norm, None)

        def tokens(box: Box) -> Tensor:
            return norm(self._read(x, box)).flatten(2).transpose(1, 2)

        boxes = list(x.tiles(x.band))
        width = layer.to_k.out_features // layer.heads
        keys, values = (self._new(1, layer.heads, x.height * x.width, width) for _ in range(2))
        first = 0
        for box in boxes:
            found = tokens(box)
            last = first + found.shape[1]
            keys[:, :, first:last] = split_heads(layer, layer.to_k(found))
            values[:, :, first:last] = split_heads(layer, layer.to_v(found))
            first = last
        x.forget_statistics()
        for box in boxes:
            found = join_heads(layer, attend(split_heads(layer, layer.to_q(tokens(box))), keys, values))
            found = found.transpose(1, 2).unflatten(2, (box.bottom - box.top, box.right - box.left))
            if layer.residual_connection:
                found = found + self._read(x, box)
            x.write(box, found / layer.rescale_output_factor)
        return x

    def _conv(self, x: FeatureMap, box: Box, conv: nn.Conv2d, before: Norm | None = None) -> Tensor:
        """A convolution that keeps the size, of one tile: zeros stand only where the whole map ends, after `before`."""
        near = box.around(conv.padding[0])
        values = self._read(x, near)
        if before is not None:
            values = before(values)
        return conv2d(_pad(values, x.outside(near)), conv.weight, conv.bias)

    def _norm(self, x: FeatureMap, layer: nn.GroupNorm, activation: nn.Module | None) -> Norm:
        """`layer` with the statistics of the whole of `x`, and the activation after it."""
        mean, variance = (values.to(self.device) for values in x.statistics.of_groups(layer.num_groups))
        weight, bias = layer.weight.float(), layer.bias.float()

        def apply(values: Tensor) -> Tensor:
            values = F.batch_norm(values, mean, variance, weight, bias, eps=layer.eps)
            if isinstance(activation, nn.SiLU):
                return F.silu(values, inplace=True)
            return values if activation is None else activation(values)

        return apply

    def _like(self, x: FeatureMap, channels: int) -> FeatureMap:
        return FeatureMap(self.memory, channels, x.height, x.width, x.band, self.dtype)

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.device, dtype=self.dtype)

    def _read(self, x: FeatureMap, box: Box) -> Tensor:
        return x.read(box).to(self.device)

    def _release(self, x: FeatureMap, box: Box) -> None:
        """After the last tile of a row: all but the row of pixels that the next tiles need."""
        if box.right == x.width:
            x.release_above(box.bottom - 1 if box.bottom < x.height else x.height + x.band)


def _together(pictures: list[Tensor]) -> Tensor:
    """A batch, without a copy of a single picture."""
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


def _pad(values: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Zeros around, without a copy where none are needed."""
    return F.pad(values, sides) if any(sides) else values
