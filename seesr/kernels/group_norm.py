"""Mean and variance of whole maps, taken piece by piece and without loss of precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIECE = 1 << 22
"""Numbers that are looked at together."""
FAST_PIECE = 1 << 19
"""Numbers that a thread looks at together where its float32 sums of squares are to be precise enough for bfloat16."""
LARGEST_INVERSE = 1e6
"""Of a deviation: what is less is none."""


class Statistics:
    """Mean and variance of each channel of all that was added, by the algorithm of Chan, Golub and LeVeque (1983)."""

    def __init__(self, channels: int) -> None:
        self.pixels = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Counts `values` `(1, channels, ...)`."""
        # In two passes over float32, several times faster than `torch.var_mean` over channels that lie last.
        flat = values.movedim(1, -1).reshape(-1, values.shape[1]).float()
        mean, pixels = flat.mean(dim=0), len(flat)
        # In half precision `flat` is a copy, and a tile's memory counts.
        rest = flat - mean if values.dtype == torch.float32 else flat.sub_(mean)
        correction = rest.mean(dim=0)
        variance = rest.square_().mean(dim=0) - correction**2
        self.merge(pixels, mean.cpu().double() + correction.cpu().double(), variance.cpu().double())

    def merge(self, pixels: int, mean: Tensor, variance: Tensor) -> None:
        """Counts so many pixels of which mean and variance `(channels,)` are known, in float64."""
        total, difference = self.pixels + pixels, mean - self.mean
        self.squares += variance * pixels + difference**2 * (self.pixels * pixels / total)
        self.mean += difference * (pixels / total)
        self.pixels = total

    def of_groups(self, groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel's group, repeated for each channel: two `(channels,)`, float32."""
        mean, variance = self.mean.view(groups, -1), (self.squares / self.pixels).view(groups, -1)
        group_mean = mean.mean(dim=1, keepdim=True)
        group_variance = (variance + (mean - group_mean) ** 2).mean(dim=1, keepdim=True)
        return tuple(values.expand_as(mean).flatten().float() for values in (group_mean, group_variance))


class Float64GroupNorm(nn.GroupNorm):
    """GroupNorm that stays precise on large maps.

    PyTorch 2.13 sums squares in float32 on a CPU when channels lie last: on a map of 1536x1536 that moves a picture by
    half a grey level, and more on larger ones.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.is_contiguous():
            return super().forward(x)
        weight, bias = self.weight.float(), self.bias.float()
        made = []
        for one in x.split(1):
            found = _fast_statistics if x.dtype == torch.bfloat16 and x.ndim == 4 else _statistics
            made.append(F.batch_norm(one, *found(one, self.num_groups), weight, bias, eps=self.eps))
        return made[0] if len(made) == 1 else torch.cat(made)


def _statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance `(channels,)` of each channel's group in one map `(1, channels, height, ...)`."""
    statistics = Statistics(x.shape[1])
    for piece in x.split(max(1, PIECE // x[0, :, 0].numel()), dim=2):
        statistics.add(piece)
    return statistics.of_groups(groups)


def _fast_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The same from PyTorch's own sums over pieces, two to three times as fast: good to what bfloat16 rounds away."""
    channels, statistics = x.shape[1], Statistics(groups)
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    together = FAST_PIECE * torch.get_num_threads()
    for piece in x.split(max(1, together // x[0, :, 0].numel()), dim=2):
        pixels = piece.shape[2] * piece.shape[3]
        _, mean, inverse = torch.native_group_norm(piece, ones, zeros, 1, channels, pixels, groups, 0.0)
        statistics.merge(pixels, mean[0].double(), inverse[0].double().clamp(max=LARGEST_INVERSE) ** -2)
    return tuple(values.repeat_interleave(channels // groups) for values in statistics.of_groups(groups))


def use_float64_group_norm(model: nn.Module) -> None:
    """Puts `Float64GroupNorm` in place of every GroupNorm of `model`, on the same parameters."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.GroupNorm:
                with torch.device("meta"):
                    precise = Float64GroupNorm(norm.num_groups, norm.num_channels, norm.eps)
                precise.weight, precise.bias = norm.weight, norm.bias
                setattr(parent, name, precise.train(norm.training))
