"""AutoencoderKL in tiles with the same result as the whole: each layer runs over all tiles before the next layer starts.

A convolution reads the pixels around its tile from the complete input map; normalisation uses the mean and variance of the
whole map, which were computed while the map was written; attention in the mid block uses the keys of all pixels. So nothing
is estimated, the overlap is one pixel instead of the receptive field, and the device holds one tile. Only the input and the
output of a layer are stored whole, in memory or in files, and the input is released as soon as it is no longer needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from seesr.autoencoder.feature_maps import Box, FeatureMap, MapStorage
from seesr.kernels.attention import chunked_attention, join_heads, split_heads
from seesr.kernels.inplace import InplaceResnet
from seesr.kernels.winograd import conv2d

Norm = Callable[[Tensor], Tensor]


class TiledAutoencoder:
    """Encodes and decodes in exact tiles.

    Args:
        vae: any AutoencoderKL with GroupNorm; tiles are computed on its device.
        tile: side of a tile in latent pixels.
        storage: where whole feature maps are stored.
    """

    def __init__(self, vae: AutoencoderKL, tile: int, storage: MapStorage | None = None) -> None:
        self.vae, self.tile = vae, tile
        self.storage = storage or MapStorage()
        weight = vae.decoder.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """The posterior's mean `(B, C, H / f, W / f)`, unscaled, on the storage's device, of `(B, 3, H, W)` in -1..1."""
        return _cat([self._encode(picture) for picture in pixels.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `(B, 3, H, W)` in -1..1, on the storage's device, of unscaled latents `(B, C, h, w)`."""
        return _cat([self._decode(picture) for picture in latents.split(1)])

    def _encode(self, pixels: Tensor) -> Tensor:
        encoder, quant_conv = self.vae.encoder, self.vae.quant_conv
        x = FeatureMap.from_tensor(self.storage, pixels, self.tile * self.factor, self.dtype)
        x = self._convolve(x, encoder.conv_in)
        for block in encoder.down_blocks:
            x = self._block(x, block)
            for layer in block.downsamplers or []:
                x = self._downsample(x, layer)
        x = self._mid_block(x, encoder.mid_block)
        norm = self._norm(x, encoder.conv_norm_out, encoder.conv_act)
        return self._convolve(x, encoder.conv_out, norm, after=quant_conv).read_all().chunk(2, dim=1)[0]

    def _decode(self, latents: Tensor) -> Tensor:
        decoder, post_quant_conv = self.vae.decoder, self.vae.post_quant_conv
        x = FeatureMap.from_tensor(self.storage, latents, self.tile, self.dtype)
        x = self._convolve(x, decoder.conv_in, before=post_quant_conv)
        x = self._mid_block(x, decoder.mid_block)
        for block in decoder.up_blocks:
            x = self._block(x, block)
            for layer in block.upsamplers or []:
                x = self._upsample(x, layer)
        norm = self._norm(x, decoder.conv_norm_out, decoder.conv_act)
        return self._convolve(x, decoder.conv_out, norm).read_all()

    def _mid_block(self, x: FeatureMap, block: Any) -> FeatureMap:
        x = self._resnet(x, block.resnets[0])
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            x = self._resnet(x if attention is None else self._attend(x, attention), resnet)
        return x

    def _block(self, x: FeatureMap, block: Any) -> FeatureMap:
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions, strict=True):
            x = self._resnet(x, resnet)
            x = x if attention is None else self._attend(x, attention)
        return x

    def _resnet(self, x: FeatureMap, block: ResnetBlock2D | InplaceResnet) -> FeatureMap:
        """In two passes: the first writes the hidden map and, where widths differ, the shortcut, and releases `x` meanwhile;
        the second adds to the shortcut in place."""
        hidden = self._map_like(x, block.conv1.out_channels)
        shortcut = x if block.conv_shortcut is None else self._map_like(x, block.conv1.out_channels)
        norm = self._norm(x, block.norm1, block.nonlinearity)
        for box in x.tiles(x.band_height):
            hidden.write(box, self._conv(x, box, block.conv1, norm))
            if block.conv_shortcut is not None:
                shortcut.write(box, block.conv_shortcut(self._read(x, box)))
                self._release(x, box)
        norm = self._norm(hidden, block.norm2, block.nonlinearity)
        shortcut.reset_statistics()
        for box in hidden.tiles(hidden.band_height):
            residual = self._conv(hidden, box, block.conv2, norm)
            shortcut.write(box, residual.add_(self._read(shortcut, box)).div_(block.output_scale_factor))
            self._release(hidden, box)
        return shortcut

    def _convolve(
        self, x: FeatureMap, conv: nn.Conv2d, before: Norm | None = None, after: nn.Conv2d | None = None
    ) -> FeatureMap:
        """`conv` over all tiles; `before` is applied to its input and the 1x1 convolution `after` to its output."""
        output = self._map_like(x, (after or conv).out_channels)
        for box in x.tiles(x.band_height):
            values = self._conv(x, box, conv, before)
            output.write(box, values if after is None else after(values))
            self._release(x, box)
        return output

    def _upsample(self, x: FeatureMap, layer: Any) -> FeatureMap:
        band_height = 2 * x.band_height
        output = FeatureMap(self.storage, layer.conv.out_channels, 2 * x.height, 2 * x.width, band_height, self.dtype)
        for box in x.tiles(x.band_height):
            expanded = box.expand(1)
            values = F.interpolate(self._read(x, expanded), scale_factor=2.0, mode="nearest")
            # The convolution needs one pixel around the tile. A neighbour inside the map gives two when upsampled, and the
            # outer one is cut off; beyond the map there is none, and a zero is added.
            left, right, top, bottom = (1 - 2 * is_outside for is_outside in (min(n, 1) for n in x.padding_for(expanded)))
            values = F.pad(values, (-left, -right, -top, -bottom))
            target = Box(2 * box.top, 2 * box.bottom, 2 * box.left, 2 * box.right)
            output.write(target, conv2d(values, layer.conv.weight, layer.conv.bias))
            self._release(x, box)
        return output

    def _downsample(self, x: FeatureMap, layer: Any) -> FeatureMap:
        """A convolution with stride 2; without padding, a row and a column of zeros are added at the bottom and right."""
        padding = layer.conv.padding[0]
        height, width = ((side + (2 if padding else 1) - 3) // 2 + 1 for side in (x.height, x.width))
        output = FeatureMap(self.storage, layer.conv.out_channels, height, width, x.band_height // 2, self.dtype)
        for target in output.tiles(output.band_height):
            source = Box(
                2 * target.top - padding,
                2 * target.bottom + 1 - padding,
                2 * target.left - padding,
                2 * target.right + 1 - padding,
            )
            values = _pad(self._read(x, source), x.padding_for(source))
            output.write(target, F.conv2d(values, layer.conv.weight, layer.conv.bias, stride=2))
            if target.right == output.width:
                x.release_above(source.bottom - 1)
        return output

    def _attend(self, x: FeatureMap, layer: Attention) -> FeatureMap:
        """Attention over all pixels: keys and values of the whole map are on the device, queries come tile by tile."""
        norm = (lambda tensor: tensor) if layer.group_norm is None else self._norm(x, layer.group_norm, None)

        def read_tokens(box: Box) -> Tensor:
            return norm(self._read(x, box)).flatten(2).transpose(1, 2)

        boxes = list(x.tiles(x.band_height))
        head_dim = layer.to_k.out_features // layer.heads
        keys, values = (self._empty(1, layer.heads, x.height * x.width, head_dim) for _ in range(2))
        first = 0
        for box in boxes:
            tokens = read_tokens(box)
            last = first + tokens.shape[1]
            keys[:, :, first:last] = split_heads(layer, layer.to_k(tokens))
            values[:, :, first:last] = split_heads(layer, layer.to_v(tokens))
            first = last
        x.reset_statistics()
        for box in boxes:
            attended = chunked_attention(split_heads(layer, layer.to_q(read_tokens(box))), keys, values)
            attended = join_heads(layer, attended).transpose(1, 2).unflatten(2, (box.bottom - box.top, box.right - box.left))
            if layer.residual_connection:
                attended = attended + self._read(x, box)
            x.write(box, attended / layer.rescale_output_factor)
        return x

    def _conv(self, x: FeatureMap, box: Box, conv: nn.Conv2d, before: Norm | None = None) -> Tensor:
        """One tile of a convolution that keeps the size. Only the border of the whole map is padded with zeros, after
        `before` is applied."""
        expanded = box.expand(int(conv.padding[0]))
        values = self._read(x, expanded)
        if before is not None:
            values = before(values)
        return conv2d(_pad(values, x.padding_for(expanded)), conv.weight, conv.bias)

    def _norm(self, x: FeatureMap, layer: nn.GroupNorm, activation: nn.Module | None) -> Norm:
        """`layer` with the statistics of the whole of `x`, followed by the activation."""
        mean, variance = (values.to(self.device) for values in x.statistics.by_group(layer.num_groups))
        weight, bias = layer.weight.float(), layer.bias.float()

        def apply(values: Tensor) -> Tensor:
            values = F.batch_norm(values, mean, variance, weight, bias, eps=layer.eps)
            if isinstance(activation, nn.SiLU):
                return F.silu(values, inplace=True)
            return values if activation is None else activation(values)

        return apply

    def _map_like(self, x: FeatureMap, channels: int) -> FeatureMap:
        return FeatureMap(self.storage, channels, x.height, x.width, x.band_height, self.dtype)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.device, dtype=self.dtype)

    def _read(self, x: FeatureMap, box: Box) -> Tensor:
        return x.read(box).to(self.device)

    def _release(self, x: FeatureMap, box: Box) -> None:
        """Releases, after the last tile of a row of tiles, all rows of pixels but the one that the next tiles need."""
        if box.right == x.width:
            x.release_above(box.bottom - 1 if box.bottom < x.height else x.height + x.band_height)


def _cat(pictures: list[Tensor]) -> Tensor:
    """A batch of the pictures, without copying a single one."""
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


def _pad(values: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Pads with zeros, without copying where no padding is needed."""
    return F.pad(values, padding) if any(padding) else values
